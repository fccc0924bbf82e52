//! Waiting with a deadline: what is not so in time fails the test and says what it waited for.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const STEP: Duration = Duration::from_millis(25);

/// Looks again and again until there is an answer.
///
/// # Panics
/// When `limit` has passed; `look`'s last refusal is part of the message.
#[track_caller]
pub fn until<T, E: Display>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(answer) => return answer,
            Err(last) => {
                assert!(start.elapsed() < limit, "{what}: not within {limit:?}; last seen: {last}");
            }
        }
        thread::sleep(STEP);
    }
}

/// Waits until it is so.
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || if look() { Ok(()) } else { Err("it is not so") });
}

/// Times a step of a test and prints how long it took.
pub fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = step();
    println!("{:>7.2} s  {what}", start.elapsed().as_secs_f64());
    result
}
