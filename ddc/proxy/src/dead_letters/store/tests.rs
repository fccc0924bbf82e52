//! The store: what is kept, what is refused, and what a crash leaves.

use proptest::prelude::*;

use super::super::line::tests::any_letter;
use super::super::reading;
use super::*;

const MAX: u64 = 1 << 30;

fn open(path: &Path) -> Store {
    Store::open(path, MAX, "plant-a", Side::Egress).unwrap()
}

/// All letters that a reader finds, and how many lines it cannot read.
fn read(path: &Path) -> (Vec<Letter>, usize) {
    let (mut letters, mut bad) = (Vec::new(), 0);
    for file in reading::files(path).unwrap() {
        reading::read(&file, |found| match found.letter {
            Ok(letter) => letters.push(letter),
            Err(_) => bad += 1,
        })
        .unwrap();
    }
    (letters, bad)
}

fn letters(count: usize) -> Vec<Letter> {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    (0..count).map(|_| any_letter().new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn letters_outlive_the_process_in_order() {
    let temporary = tempfile::tempdir().unwrap();
    let all = letters(30);
    for part in all.chunks(10) {
        let mut store = open(temporary.path());
        for letter in part {
            store.append(letter).unwrap();
        }
        assert!(!store.is_synced());
        store.sync().unwrap();
        assert!(store.is_synced());
        assert_eq!(store.bytes(), measured(temporary.path()));
    }
    assert_eq!(read(temporary.path()), (all, 0));
    assert_eq!(files(temporary.path()).unwrap().len(), 1);
}

#[test]
fn a_full_directory_takes_nothing_until_there_is_room() {
    let temporary = tempfile::tempdir().unwrap();
    let letter = &letters(1)[0];
    let mut store = Store::open(temporary.path(), 20_000, "plant-a", Side::Egress).unwrap();
    let mut kept = 0;
    let error = loop {
        match store.append(letter) {
            Ok(()) => kept += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(kept > 5 && error.contains("max_size is 20000"), "{kept}: {error}");
    store.sync().unwrap();
    assert!(measured(temporary.path()) <= 20_000);
    assert_eq!(read(temporary.path()).0.len(), kept, "what was refused is not there");
    assert!(store.append(letter).is_err());
    // Somebody takes them away, the newest too.
    std::fs::remove_file(&files(temporary.path()).unwrap()[0].1).unwrap();
    store.looked_at = None;
    store.append(letter).unwrap();
    store.sync().unwrap();
    assert_eq!(read(temporary.path()), (vec![letter.clone()], 0));
    assert_eq!(files(temporary.path()).unwrap()[0].0, 2, "a number is not used again while it runs");
}

/// What was not synced when somebody removed the file or carried it away is written again.
#[test]
fn a_removed_file_takes_nothing_with_it_that_is_not_settled() {
    let temporary = tempfile::tempdir().unwrap();
    let all = letters(3);
    let mut store = open(temporary.path());
    store.append(&all[0]).unwrap();
    store.sync().unwrap();
    store.append(&all[1]).unwrap();
    std::fs::remove_file(&files(temporary.path()).unwrap()[0].1).unwrap();
    store.sync().unwrap();
    store.append(&all[2]).unwrap();
    assert_eq!(read(temporary.path()), (all[1..].to_vec(), 0));
    let (number, path) = files(temporary.path()).unwrap().remove(0);
    std::fs::rename(path, temporary.path().join("carried-away")).unwrap();
    store.append(&all[0]).unwrap();
    store.sync().unwrap();
    assert_eq!(files(temporary.path()).unwrap()[0].0, number + 1);
    assert_eq!(read(temporary.path()), (vec![all[2].clone(), all[0].clone()], 0));
}

#[test]
fn files_follow_each_other() {
    let temporary = tempfile::tempdir().unwrap();
    let mut letter = letters(1).remove(0);
    letter.value = Some(vec![7; 9 << 20]);
    let mut store = open(temporary.path());
    for _ in 0..4 {
        store.append(&letter).unwrap();
    }
    // Three times 12 MiB as base64 fill a file.
    assert_eq!(files(temporary.path()).unwrap().len(), 2);
    store.sync().unwrap();
    drop(store);
    assert_eq!(read(temporary.path()), (vec![letter; 4], 0));
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    let said = |content: &str| {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::write(temporary.path().join("dead-letters-00000003.jsonl"), content).unwrap();
        Store::open(temporary.path(), MAX, "plant-a", Side::Egress).map(drop).unwrap_err().to_string()
    };
    let head = |format: u64, link: &str, side: &str| {
        format!(
            "{{\"kind\":\"ddc-dead-letters\",\"format\":{format},\"link\":\"{link}\",\"side\":\"{side}\"}}\n"
        )
    };
    assert!(said("something else\n").contains("holds no dead letters"));
    assert!(said(&"x".repeat(5000)).contains("holds no dead letters"));
    assert!(said(&head(2, "plant-a", "egress")).contains("has format 2"));
    assert!(said(&head(1, "plant-b", "egress")).contains("of link plant-b/egress, not of plant-a/egress"));
    assert!(said(&head(1, "plant-a", "ingress")).contains("not of plant-a/egress"));
    let temporary = tempfile::tempdir().unwrap();
    for other in ["dead-letters-3.jsonl", "dead-letters-00000003.jsonl.gz", "notes.txt"] {
        std::fs::write(temporary.path().join(other), "anything").unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", temporary.path().join("dead-letters-00000009.jsonl")).unwrap();
    let mut store = open(temporary.path());
    store.append(&letters(1)[0]).unwrap();
    assert_eq!(files(temporary.path()).unwrap()[0].0, 1, "what is not ours is left alone");
    assert!(matches!(
        Store::open(temporary.path(), MAX, "plant-a", Side::Egress),
        Err(StoreError::Directory(StateError::InUse(_)))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A crash leaves any prefix of what was written, and anything behind it that the disk made up: every letter that is
    /// whole in the prefix is kept, nothing else is read, and it goes on.
    #[test]
    fn a_torn_end_is_cut(keep: prop::sample::Index, behind in proptest::collection::vec(any::<u8>(), 0..80)) {
        let temporary = tempfile::tempdir().unwrap();
        let all = letters(8);
        let mut store = open(temporary.path());
        let mut ends = Vec::new();
        for letter in &all {
            store.append(letter).unwrap();
            ends.push(store.bytes());
        }
        drop(store);
        let path = files(temporary.path()).unwrap()[0].1.clone();
        let mut bytes = std::fs::read(&path).unwrap();
        let keep = keep.index(bytes.len() + 1);
        bytes.truncate(keep);
        bytes.extend_from_slice(&behind);
        std::fs::write(&path, &bytes).unwrap();
        let whole = ends.iter().filter(|end| **end <= keep as u64).count();
        let head = bytes.iter().position(|byte| *byte == b'\n');
        let reopened = Store::open(temporary.path(), MAX, "plant-a", Side::Egress);
        let Ok(mut store) = reopened else {
            // The first line itself is torn, and what lies behind looks like a line's end.
            prop_assert!(keep < 80 && head.is_some());
            return Ok(());
        };
        prop_assert_eq!(read(temporary.path()), (all[..whole].to_vec(), 0));
        store.append(&all[0]).unwrap();
        store.sync().unwrap();
        prop_assert_eq!(read(temporary.path()).0.len(), whole + 1);
    }
}
