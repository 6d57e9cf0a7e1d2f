//! Queues of objects: doubly linked through arrays, since objects are numbers without gaps.

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    newer: u32,
    older: u32,
}

/// The links of all objects, each of which is in one queue at most.
pub(super) struct Links {
    nodes: Vec<Node>,
}

/// Objects in the order they were pushed.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    newest: u32,
    oldest: u32,
    pub(super) len: usize,
    pub(super) weight: u64,
}

impl Links {
    pub(super) fn new(objects: usize) -> Self {
        let free = Node {
            newer: NONE,
            older: NONE,
        };
        Self {
            nodes: vec![free; objects],
        }
    }

    /// The object that was pushed after this one.
    pub(super) fn newer(&self, object: u32) -> Option<u32> {
        Some(self.nodes[object as usize].newer).filter(|newer| *newer != NONE)
    }
}

impl Queue {
    pub(super) const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        len: 0,
        weight: 0,
    };

    pub(super) fn oldest(&self) -> Option<u32> {
        Some(self.oldest).filter(|oldest| *oldest != NONE)
    }

    pub(super) fn push(&mut self, links: &mut Links, object: u32, weight: u64) {
        links.nodes[object as usize] = Node {
            newer: NONE,
            older: self.newest,
        };
        match self.newest {
            NONE => self.oldest = object,
            newest => links.nodes[newest as usize].newer = object,
        }
        self.newest = object;
        self.len += 1;
        self.weight += weight;
    }

    pub(super) fn remove(&mut self, links: &mut Links, object: u32, weight: u64) {
        let Node { newer, older } = links.nodes[object as usize];
        match newer {
            NONE => self.newest = older,
            newer => links.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => links.nodes[older as usize].newer = newer,
        }
        self.len -= 1;
        self.weight -= weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_keep_order_whatever_is_removed() {
        let mut links = Links::new(5);
        let mut queue = Queue::EMPTY;
        (0..5).for_each(|object| queue.push(&mut links, object, 10));
        for object in [2, 0, 4] {
            queue.remove(&mut links, object, 10);
        }
        queue.push(&mut links, 2, 10);
        let mut order = Vec::new();
        while let Some(oldest) = queue.oldest() {
            order.push(oldest);
            queue.remove(&mut links, oldest, 10);
        }
        assert_eq!(order, [1, 3, 2]);
        assert_eq!((queue.len, queue.weight), (0, 0));
    }
}
