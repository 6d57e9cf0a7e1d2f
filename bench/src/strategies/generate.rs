//! Traces of known shape, made here: the same in every run for the same words and seed.
//!
//! ```text
//! zipf:objects=100000,theta=0.9,requests=1000000,drift=0.1,ttl=0,size=400
//! scan:...       the same, and every tenth request belongs to a walk over objects that are never asked for again
//! loop:...       all objects in turns, again and again
//! ```
//!
//! Drift is the share of the objects that have been replaced by new ones at the end: popularity wanders as it does in
//! the world. Sizes are log-normal around `size` and have nothing to do with popularity.

use std::str::FromStr;

use super::trace::{Builder, Trace};
use crate::Result;
use crate::load::popularity::{KeyPicker, Popularity, Random};

/// Requests a second, by the trace's clock.
const RATE: u64 = 1000;
/// Of the logarithm of sizes.
const SIZE_DEVIATION: f64 = 0.8;
/// Bytes of the smallest and the largest value.
const SIZE_RANGE: (f64, f64) = (8.0, 1_000_000.0);
/// One request in so many is a walker's.
const SCAN_SHARE: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Zipf,
    Scan,
    Loop,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Generator {
    shape: Shape,
    objects: u64,
    requests: u64,
    theta: f64,
    drift: f64,
    size: f64,
    ttl: u32,
    seed: u64,
}

impl FromStr for Generator {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (shape, settings) = text.split_once(':').unwrap_or((text, ""));
        let shape = match shape {
            "zipf" => Shape::Zipf,
            "scan" => Shape::Scan,
            "loop" => Shape::Loop,
            _ => return Err("expected a file, zipf, scan or loop".into()),
        };
        let mut generator = Self {
            shape,
            objects: 20_000,
            requests: 300_000,
            theta: 0.9,
            drift: 0.1,
            size: 400.0,
            ttl: 0,
            seed: 1,
        };
        for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("{setting} is not name=value"))?;
            generator
                .set(name, value)
                .ok_or_else(|| format!("{setting} is no setting of a generator"))?;
        }
        Ok(generator)
    }
}

impl Generator {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        fn number<T: FromStr + PartialOrd>(text: &str, from: T, to: T) -> Option<T> {
            text.parse()
                .ok()
                .filter(|number| (from..=to).contains(number))
        }
        match name {
            "objects" => self.objects = number(value, 1, 1 << 30)?,
            "requests" => self.requests = number(value, 1, 1 << 31)?,
            "theta" => self.theta = number(value, 0.0, 10.0)?,
            "drift" => self.drift = number(value, 0.0, 100.0)?,
            "size" => self.size = number(value, 1.0, 1e8)?,
            "ttl" => self.ttl = number(value, 0, u32::MAX)?,
            "seed" => self.seed = number(value, 0, u64::MAX)?,
            _ => return None,
        }
        Some(())
    }

    fn name(&self) -> &'static str {
        match self.shape {
            Shape::Zipf => "zipf",
            Shape::Scan => "scan",
            Shape::Loop => "loop",
        }
    }

    /// # Errors
    /// More objects than a trace can hold.
    pub(crate) fn trace(&self) -> Result<Trace> {
        let mut builder = Builder::new(self.name());
        let mut random = Random::new(self.seed ^ 0x5eed);
        let mut picker = match self.shape {
            Shape::Loop => KeyPicker::sequential(0, self.objects, self.seed),
            _ => KeyPicker::new(self.objects, Popularity::Zipf(self.theta), self.seed),
        };
        // Numbered when they are first asked for.
        let mut numbers = vec![u32::MAX; self.objects as usize];
        let mut replaced = 0.0;
        let drift = self.drift * self.objects as f64 / self.requests as f64;
        for index in 0..self.requests {
            let at_ms = index * 1000 / RATE;
            if self.shape != Shape::Loop {
                replaced += drift;
                while replaced >= 1.0 {
                    replaced -= 1.0;
                    numbers[random.below(self.objects) as usize] = u32::MAX;
                }
            }
            if self.shape == Shape::Scan && index % SCAN_SHARE == SCAN_SHARE - 1 {
                let object = builder.object(self.draw_size(&mut random))?;
                builder.request(at_ms, object, self.ttl);
                continue;
            }
            let place = picker.next() as usize;
            if numbers[place] == u32::MAX {
                numbers[place] = builder.object(self.draw_size(&mut random))?;
            }
            builder.request(at_ms, numbers[place], self.ttl);
        }
        builder.finish()
    }

    fn draw_size(&self, random: &mut Random) -> u32 {
        // Box and Muller's transform; the median is `size`.
        let (one, other) = (1.0 - random.unit(), random.unit());
        let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos();
        let size = self.size * (normal * SIZE_DEVIATION).exp();
        size.clamp(SIZE_RANGE.0, SIZE_RANGE.1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_make_the_same_trace() {
        let generator: Generator = "zipf:objects=100,requests=5000,drift=1".parse().unwrap();
        let (one, other) = (generator.trace().unwrap(), generator.trace().unwrap());
        assert_eq!(one.requests, other.requests);
        assert_eq!(one.sizes, other.sizes);
        assert!(one.objects() > 120, "objects are replaced over time");
    }

    #[test]
    fn a_loop_asks_for_all_in_turns() {
        let generator: Generator = "loop:objects=3,requests=5".parse().unwrap();
        let trace = generator.trace().unwrap();
        let objects: Vec<u32> = trace
            .requests
            .iter()
            .map(|request| request.object)
            .collect();
        assert_eq!(objects, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn walkers_ask_for_each_object_once() {
        let generator: Generator = "scan:objects=50,requests=1000,drift=0".parse().unwrap();
        let trace = generator.trace().unwrap();
        assert!((100..=150).contains(&trace.objects()));
    }

    #[test]
    fn what_is_no_generator_is_refused() {
        for text in [
            "zip",
            "zipf:objects",
            "zipf:objects=0",
            "zipf:x=1",
            "loop:drift=-1",
        ] {
            assert!(text.parse::<Generator>().is_err(), "{text}");
        }
    }
}
