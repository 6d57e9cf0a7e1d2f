//! The channels and patterns that one connection is subscribed to.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use super::Session;
use crate::pubsub::Kind;

/// By kind, in the order in which an unsubscription from all goes through them.
#[derive(Default)]
pub struct Subscriptions {
    channels: BTreeSet<Box<[u8]>>,
    patterns: BTreeSet<Box<[u8]>>,
    shard_channels: BTreeSet<Box<[u8]>>,
}

impl Subscriptions {
    fn of(&mut self, kind: Kind) -> &mut BTreeSet<Box<[u8]>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::ShardChannel => &mut self.shard_channels,
        }
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty()
    }
}

impl Session {
    /// Subscribes; nothing changes if it is so already.
    pub fn subscribe(&mut self, kind: Kind, name: &[u8]) {
        let subscriptions = self.subscriptions.get_or_insert_default();
        if subscriptions.of(kind).insert(name.into()) {
            self.client.held.add_name(name);
            self.note_subscriptions(kind);
            self.server.pubsub.of(kind).add(name, &self.client);
        }
    }

    /// Ends a subscription, if there is one.
    pub fn unsubscribe(&mut self, kind: Kind, name: &[u8]) {
        let Some(subscriptions) = &mut self.subscriptions else {
            return;
        };
        if subscriptions.of(kind).remove(name) {
            self.server.pubsub.of(kind).remove(name, self.client.id);
            self.client.held.remove_name(name);
            self.note_subscriptions(kind);
        }
    }

    /// What it is subscribed to.
    pub fn subscribed_to(&mut self, kind: Kind) -> Vec<Box<[u8]>> {
        self.subscriptions
            .as_mut()
            .map(|subscriptions| subscriptions.of(kind).iter().cloned().collect())
            .unwrap_or_default()
    }

    /// How many subscriptions confirmations of this kind count: channels and patterns together.
    pub fn subscription_count(&mut self, kind: Kind) -> usize {
        let Some(subscriptions) = &mut self.subscriptions else {
            return 0;
        };
        match kind {
            Kind::Channel | Kind::Pattern => {
                subscriptions.channels.len() + subscriptions.patterns.len()
            }
            Kind::ShardChannel => subscriptions.shard_channels.len(),
        }
    }

    /// Ends all subscriptions without a word.
    pub fn unsubscribe_all(&mut self) {
        for kind in Kind::ALL {
            for name in self.subscribed_to(kind) {
                self.unsubscribe(kind, &name);
            }
        }
    }

    fn note_subscriptions(&mut self, kind: Kind) {
        let Some(subscriptions) = &mut self.subscriptions else {
            return;
        };
        let shown = match kind {
            Kind::Channel => &self.client.channels,
            Kind::Pattern => &self.client.patterns,
            Kind::ShardChannel => &self.client.shard_channels,
        };
        shown.store(subscriptions.of(kind).len() as u32, Ordering::Relaxed);
        self.client.account();
        self.flags.subscribed = !subscriptions.is_empty();
        if !self.flags.subscribed {
            self.subscriptions = None;
        }
    }
}
