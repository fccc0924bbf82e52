//! How fast this machine codes, one core: `cargo run --release -p ddc-fec --example throughput`.
//!
//! Prints gigabytes of source data per second, encoded, and restored with the losses spread over the block.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ddc_fec::{Code, Decoder, SymbolSet, encode};

const SYMBOL_SIZE: usize = 1412;
const ROUND: Duration = Duration::from_millis(300);

fn main() {
    println!("source bytes per second, one core, symbols of {SYMBOL_SIZE} bytes");
    for code in [Code::LATENCY, Code::DEFAULT, Code::LOSSY, Code::EFFICIENT, Code::DEFAULT.short(1)] {
        let sources: Vec<u8> = (0..code.k() * SYMBOL_SIZE).map(|at| (at * 31 + at / 251) as u8).collect();
        let mut repair = vec![0; code.r() * SYMBOL_SIZE];
        let encoded = best(sources.len(), || fits(encode(SYMBOL_SIZE, black_box(&sources), &mut repair)));
        println!("{code:>7}  encode      {encoded:6.2} GB/s");
        let mut decoder = Decoder::new();
        for lost in [1, code.r().min(code.k())] {
            let mut present = SymbolSet::first(code.k());
            for index in 0..lost {
                present.remove(index * code.k() / lost);
            }
            let mut block = sources.clone();
            let all = SymbolSet::first(code.r());
            let restored = best(sources.len(), || {
                fits(decoder.decode(SYMBOL_SIZE, black_box(&mut block), present, &repair, all));
            });
            assert!(block == sources, "decoded bytes differ");
            println!("{code:>7}  repair {lost:<3}  {restored:6.2} GB/s");
        }
    }
}

/// The shapes above are valid, so an error is a fault of this program.
fn fits<T, E: std::fmt::Display>(result: Result<T, E>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// The best of five rounds, in GB/s: the machine may be busy with something else.
fn best(bytes: usize, mut work: impl FnMut()) -> f64 {
    let round = |work: &mut dyn FnMut()| {
        let (start, mut blocks) = (Instant::now(), 0_u64);
        while start.elapsed() < ROUND {
            (0..20).for_each(|_| work());
            blocks += 20;
        }
        (blocks * bytes as u64) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| round(&mut work)).fold(0.0, f64::max)
}
