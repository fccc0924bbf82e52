//! Writes marked records into a topic, at a steady rate, from a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::dice::Dice;
use super::mark::{Mark, sample};
use crate::produce::Producer;

/// Most records that are made up for when the thread was held up: a load, not an attack.
const CATCH_UP: u64 = 500;

/// The load of one life of a topic.
pub struct Stream {
    stop: Arc<AtomicBool>,
    partitions: Arc<AtomicU32>,
    thread: Option<JoinHandle<Vec<u64>>>,
}

impl Stream {
    /// Starts; partitions are chosen at random, shapes and sizes too.
    pub fn start(
        brokers: &str,
        topic: &str,
        life: u32,
        partitions: u32,
        per_second: u64,
        seed: u64,
    ) -> Stream {
        let (stop, partitions) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(partitions)));
        let mut writer = Writer {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            life,
            dice: Dice::new(seed, 100 + u64::from(life)),
            written: Vec::new(),
        };
        let (stopped, wanted) = (Arc::clone(&stop), Arc::clone(&partitions));
        let run = move || {
            writer.run(&stopped, &wanted, per_second);
            writer.written
        };
        let thread = thread::Builder::new().name("load".into()).spawn(run).unwrap();
        Stream { stop, partitions, thread: Some(thread) }
    }

    /// The topic has so many partitions now.
    pub fn widen(&self, partitions: u32) {
        self.partitions.store(partitions, Relaxed);
    }

    /// Ends it and waits until the cluster has everything; how many records each partition got.
    pub fn stop(mut self) -> Vec<u64> {
        self.stop.store(true, Relaxed);
        // Invariant: taken only here, and this consumes the stream.
        self.thread.take().expect("it runs").join().expect("the load ends well")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Writer {
    brokers: String,
    topic: String,
    life: u32,
    dice: Dice,
    /// By partition.
    written: Vec<u64>,
}

impl Writer {
    fn run(&mut self, stop: &AtomicBool, partitions: &AtomicU32, per_second: u64) {
        let (begin, mut number) = (Instant::now(), 0);
        let mut producer = Producer::new(&self.brokers);
        while !stop.load(Relaxed) {
            let wanted = partitions.load(Relaxed) as usize;
            if wanted > self.written.len() {
                // A client keeps what it knows of a topic for minutes: a new one sees the new partitions, and writes
                // behind what the old one wrote.
                producer.flush();
                producer = Producer::new(&self.brokers);
                self.written.resize(wanted, 0);
            }
            let due = (begin.elapsed().as_secs_f64() * per_second as f64) as u64;
            number = number.max(due.saturating_sub(CATCH_UP));
            while number < due {
                self.write(&producer);
                number += 1;
            }
            thread::sleep(Duration::from_millis(5));
        }
        producer.flush();
    }

    fn write(&mut self, producer: &Producer) {
        let partition = self.dice.below(self.written.len() as u64) as usize;
        let mark = Mark { life: self.life, partition: partition as i32, sequence: self.written[partition] };
        producer.send(&self.topic, partition as i32, &sample(mark, &mut self.dice));
        self.written[partition] += 1;
    }
}
