//! The corpora of the fuzz targets, replayed on a stable compiler: what a fuzzer once found stays found.
//!
//! The bodies are those of `ddc/fuzz`, included as they are; that crate lies outside the workspace, since libFuzzer needs a
//! nightly compiler.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../../fuzz/src/bodies.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "what the program itself made up cannot be wrong; a panic is the failed test"
)]
#[expect(unreachable_pub, reason = "the file is also a module of the fuzz targets' library")]
mod bodies;

/// More files than this are a heap, not a corpus; `ddc/fuzz/README.md` says how to thin them.
const MAX_FILES: usize = 300;

#[test]
fn corpora() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut files = 0;
    let mut failed = Vec::new();
    for (target, body) in bodies::TARGETS {
        // By content: the order of a directory is no order, and nothing is to be there twice.
        let mut inputs = BTreeMap::new();
        for entry in fs::read_dir(root.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let twice = inputs.insert(fs::read(&path).unwrap(), path.clone());
            assert!(twice.is_none(), "{} and {} are the same", path.display(), twice.unwrap().display());
        }
        assert!(inputs.len() >= 5, "the corpus of {target} is missing");
        files += inputs.len();
        for (data, path) in inputs {
            if catch_unwind(|| body(&data)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail: {failed:#?}");
    assert!(files <= MAX_FILES, "{files} files");
    let known: Vec<_> = bodies::TARGETS.iter().map(|(name, _)| *name).collect();
    for entry in fs::read_dir(&root).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(known.iter().any(|known| *known == name), "a corpus without a target: {}", name.display());
    }
}

/// A corpus that is refused at the first check would pass for ever.
#[test]
fn the_receivers_corpus_reaches_the_far_end() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/receiver");
    let reached: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| bodies::play(&fs::read(entry.unwrap().path()).unwrap()))
        .collect();
    let programs = |what: fn(&bodies::Reached) -> u64| reached.iter().filter(|one| what(one) > 0).count();
    let counts = [
        programs(|one| one.batches),
        programs(|one| one.unpacked),
        programs(|one| one.given_up),
        programs(|one| one.late),
        programs(|one| one.retired),
    ];
    println!("{counts:?} of {} programs", reached.len());
    assert!(counts.iter().zip([10, 10, 8, 1, 4]).all(|(count, least)| *count >= least), "{counts:?}");
}
