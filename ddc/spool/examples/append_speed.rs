//! How fast the spool appends, side by side with a loop that writes as many bytes to one file as `dd bs=1M` does, with the same
//! fsync interval; and how long a start with a large spool takes until the first frame is read.
//!
//! ```text
//! cargo run --release -p ddc-spool --example append_speed -- DIRECTORY [MiB per run] [MiB of the large spool]
//! ```
//!
//! The spool gets frames of 90,000 bytes, each with a CRC-32C, and a reader takes them from memory meanwhile. Runs alternate, four of
//! each; the median of the ratios counts.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ddc_spool::{Bytes, Fsync, Head, Next, Options, Spool};

const FRAME: usize = 90_000;
const INTERVAL: Duration = Duration::from_millis(100);
const RUNS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: append_speed DIRECTORY [MiB] [MiB]")?);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (run, large) = (number(1024)? << 20, number(4096)? << 20);
    fs::create_dir_all(&directory)?;
    let mut ratios = Vec::new();
    for round in 0..RUNS {
        let (plain, spool) = (plain(&directory, run)?, append(&directory, run)?);
        println!("round {round}: plain {plain:.0} MB/s, spool {spool:.0} MB/s, ratio {:.2}", spool / plain);
        ratios.push(spool / plain);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", f64::midpoint(ratios[RUNS / 2 - 1], ratios[RUNS / 2]));
    restart(&directory, large)
}

/// MB/s of a loop that does nothing but write, with a thread that calls fdatasync.
fn plain(directory: &Path, bytes: usize) -> Result<f64, Box<dyn Error>> {
    let path = directory.join("plain");
    let mut file = File::create(&path)?;
    let (syncing, stop) = (file.try_clone()?, Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || -> std::io::Result<()> {
        while !stopped.load(Relaxed) {
            thread::sleep(INTERVAL);
            syncing.sync_data()?;
        }
        Ok(())
    });
    let block: Vec<u8> = payload().into_iter().cycle().take(1 << 20).collect();
    let begun = Instant::now();
    for _ in 0..bytes >> 20 {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    let took = begun.elapsed();
    stop.store(true, Relaxed);
    thread.join().map_err(|_| "the thread panicked")??;
    fs::remove_file(path)?;
    Ok(bytes as f64 / 1e6 / took.as_secs_f64())
}

/// MB/s of the spool, until everything is durable, with a reader that keeps up.
fn append(directory: &Path, bytes: usize) -> Result<f64, Box<dyn Error>> {
    let path = directory.join("spool");
    let opened = Spool::open(options(&path))?;
    let (spool, mut appender, mut reader) = (opened.spool, opened.appender, opened.reader);
    let payload = Bytes::from(payload());
    let count = bytes / FRAME;
    let reading = thread::spawn(move || {
        let mut read = 0;
        while let Ok(Next::Frame(_)) = reader.next(Duration::from_secs(10)) {
            read += 1;
        }
        read
    });
    let begun = Instant::now();
    for block in 0..count {
        appender.append_bytes(&Head { block: block as u64, ..Head::default() }, &payload)?;
    }
    spool.sync()?;
    let took = begun.elapsed();
    drop(appender);
    let read: usize = reading.join().map_err(|_| "the reader panicked")?;
    let reads = spool.stats().counts.disk_reads;
    if read != count {
        return Err(format!("{read} of {count} frames were read").into());
    }
    println!("        {read} frames read, {reads} reads from the disk");
    drop(spool);
    fs::remove_dir_all(path)?;
    Ok(bytes as f64 / 1e6 / took.as_secs_f64())
}

fn restart(directory: &Path, bytes: usize) -> Result<(), Box<dyn Error>> {
    let path = directory.join("large");
    let mut opened = Spool::open(options(&path))?;
    let payload = payload();
    for block in 0..bytes / FRAME {
        opened.appender.append(&Head { block: block as u64, ..Head::default() }, &[&payload])?;
    }
    drop(opened);
    // As after a reboot: nothing of it in memory.
    for entry in fs::read_dir(&path)? {
        rustix::fs::fadvise(&File::open(entry?.path())?, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    let begun = Instant::now();
    let mut opened = Spool::open(options(&path))?;
    let open = begun.elapsed();
    let Next::Frame(_) = opened.reader.next(Duration::from_secs(10))? else { return Err("no frame".into()) };
    let first = begun.elapsed();
    let begun = Instant::now();
    let mut read = FRAME;
    while let Next::Frame(frame) = opened.reader.next(Duration::ZERO)? {
        read += frame.payload.len();
    }
    let rate = read as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let (mib, segments) = (bytes >> 20, opened.report.segments);
    println!(
        "{mib} MiB in {segments} segments: open {open:.0?}, first frame after {first:.0?}, then {rate:.0} MB/s"
    );
    drop(opened);
    fs::remove_dir_all(path)?;
    Ok(())
}

fn options(path: &Path) -> Options {
    Options { fsync: Fsync::Interval(INTERVAL), max_bytes: 1 << 40, ..Options::new(path, *b"append speed") }
}

/// Bytes that do not compress.
fn payload() -> Vec<u8> {
    (0..FRAME as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}
