//! Tests of the RocksDB store: against the ordered map, through snapshots, and with damaged files.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use onceflow_engine::state::cold::{BorrowedRow, MemoryColdStore};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::storage::FileName;

const CACHE: usize = 4 << 20;

struct Place {
    root: tempfile::TempDir,
    storage: ShardStorage,
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        let storage = ShardStorage::open(&root.path().join("checkpoints"), "onceflow", "orders", 0).unwrap();
        Place { root, storage }
    }

    fn work(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn create(&self, incarnation: &str) -> RocksCold {
        RocksCold::create(&self.work(), incarnation, CACHE).unwrap()
    }

    fn restore(&self, snapshot: &ColdSnapshot, incarnation: &str) -> Result<RocksCold, StorageError> {
        RocksCold::restore(&self.work(), &self.storage, snapshot, incarnation, CACHE)
    }

    fn snapshot(&self, cold: &RocksCold) -> super::super::frozen::StoredCold {
        cold.freeze().unwrap().store(&self.storage).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.storage.list().unwrap().iter().map(ToString::to_string).collect()
    }
}

fn run(step: u32, pane: i64, generation: u64) -> Run {
    Run { step, pane, generation }
}

type Rows = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

fn some_rows(random: &mut SmallRng, count: usize) -> Rows {
    (0..count)
        .map(|_| {
            let key: Vec<u8> = (0..random.random_range(0..12)).map(|_| random.random()).collect();
            let state: Vec<u8> = (0..random.random_range(0..40)).map(|_| random.random_range(0..4)).collect();
            ((random.random_range(0..64), key), state)
        })
        .collect()
}

/// Rows of an iterator, and perhaps an error after them.
struct Lent<'a, I: Iterator<Item = BorrowedRow<'a>>>(I, Option<ColdError>);

impl<'a, I: Iterator<Item = BorrowedRow<'a>>> RunRows for Lent<'a, I> {
    fn next_row(&mut self) -> Result<Option<BorrowedRow<'_>>, ColdError> {
        match (self.0.next(), self.1.take()) {
            (None, Some(error)) => Err(error),
            (row, error) => {
                self.1 = error;
                Ok(row)
            }
        }
    }
}

fn ingest(cold: &dyn ColdStore, run: Run, rows: &Rows) {
    let rows = rows.iter().map(|((lane, key), state)| (*lane, key.as_slice(), state.as_slice()));
    cold.ingest(run, &mut Lent(rows, None)).unwrap();
}

fn scan(cold: &dyn ColdStore, run: Run, lanes: Range<u16>) -> Result<Vec<ColdRow>, ColdError> {
    cold.scan(run, lanes)?.collect()
}

/// The same, by look-ups: for many keys at once the run is read through.
fn one_by_one(
    cold: &dyn ColdStore,
    run: Run,
    keys: &[(u16, Vec<u8>)],
) -> Result<Vec<Option<Vec<u8>>>, ColdError> {
    keys.iter().map(|key| Ok(get(cold, run, std::slice::from_ref(key))?.remove(0))).collect()
}

fn get(cold: &dyn ColdStore, run: Run, keys: &[(u16, Vec<u8>)]) -> Result<Vec<Option<Vec<u8>>>, ColdError> {
    let keys: Vec<_> = keys.iter().map(|(lane, key)| (*lane, key.as_slice())).collect();
    cold.get(run, &keys)
}

/// Keys to look up, in an order that is not that of a run: some that this one has, and others, of which some may be the same.
fn some_keys(random: &mut SmallRng, cold: &dyn ColdStore, run: Run) -> Vec<(u16, Vec<u8>)> {
    let mut keys: Vec<_> = some_rows(random, 20).into_keys().collect();
    let rows = scan(cold, run, 0..64).unwrap();
    keys.extend(rows.into_iter().filter(|_| random.random_range(0..4) == 0).map(|row| (row.lane, row.key)));
    keys.extend_from_within(..5);
    keys.sort_by(|one, other| other.1.cmp(&one.1));
    keys
}

/// Flips one bit of a stored file, or of the file that a link shares with it.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// A store with three runs of 2,000 rows and its snapshot.
fn stored(place: &Place) -> (RocksCold, ColdSnapshot, Vec<Rows>) {
    let cold = place.create("9a7e");
    let mut random = SmallRng::seed_from_u64(7);
    let rows: Vec<Rows> = (0..3).map(|_| some_rows(&mut random, 2_000)).collect();
    for (generation, rows) in rows.iter().enumerate() {
        ingest(&cold, run(1, 60_000, generation as u64), rows);
    }
    let snapshot = place.snapshot(&cold).snapshot;
    (cold, snapshot, rows)
}

fn tables(snapshot: &ColdSnapshot) -> Vec<PathBuf> {
    snapshot
        .files
        .iter()
        .filter(|file| file.local.ends_with(".sst"))
        .map(|file| file.stored.clone().into())
        .collect()
}

#[test]
fn behaves_like_the_ordered_map() {
    for seed in 0..6 {
        let mut random = SmallRng::seed_from_u64(seed);
        let place = Place::new();
        let mut cold = place.create("i0");
        let model = MemoryColdStore::new();
        let mut live: Vec<Run> = Vec::new();
        for generation in 0..60 {
            match random.random_range(0..10) {
                0..5 => {
                    // Neighbours in every part of the key, negative panes among them.
                    let pane = [-60_000, -1, 0, 1, 60_000][random.random_range(0..5)];
                    let run = run(random.random_range(0..3), pane, generation);
                    let count = [0, 1, 5, 300][random.random_range(0..4)];
                    let rows = some_rows(&mut random, count);
                    ingest(&cold, run, &rows);
                    ingest(&model, run, &rows);
                    live.push(run);
                }
                5..7 if !live.is_empty() => {
                    let run = live.swap_remove(random.random_range(0..live.len()));
                    cold.remove(run).unwrap();
                    model.remove(run).unwrap();
                    assert!(scan(&cold, run, 0..64).is_err());
                    assert!(get(&cold, run, &[]).is_err());
                }
                7 => {
                    let incarnation = format!("i{generation}");
                    let snapshot = place.snapshot(&cold).snapshot;
                    cold = match snapshot.files.is_empty() {
                        true => place.create(&incarnation),
                        false => place.restore(&snapshot, &incarnation).unwrap(),
                    };
                }
                _ => {}
            }
            for &run in &live {
                let start = random.random_range(0..64);
                let lanes = start..random.random_range(start..=64);
                assert_eq!(scan(&cold, run, lanes.clone()), scan(&model, run, lanes), "seed {seed}, {run:?}");
                let keys = some_keys(&mut random, &model, run);
                assert_eq!(get(&cold, run, &keys), get(&model, run, &keys), "seed {seed}, {run:?}");
            }
        }
        for run in live {
            assert_eq!(scan(&cold, run, 0..64), scan(&model, run, 0..64));
            cold.remove(run).unwrap();
        }
        assert_eq!(cold.bytes(), 0);
        assert_eq!(place.snapshot(&cold).snapshot, ColdSnapshot::default());
    }
}

#[test]
fn a_look_up_finds_what_this_run_has_of_a_key() {
    let place = Place::new();
    let cold = place.create("9a7e");
    // More rows than one block of a filter has room for, and of each key two runs out of three have a state of their own.
    let all = some_rows(&mut SmallRng::seed_from_u64(11), 40_000);
    let of_run = |generation: u8| {
        let mut rows = Rows::new();
        for (at, (key, state)) in all.iter().enumerate() {
            if at % 3 != usize::from(generation) {
                rows.insert(key.clone(), [&[generation][..], state].concat());
            }
        }
        rows
    };
    let runs = [0, 1, 2].map(|generation| (run(1, 0, u64::from(generation)), of_run(generation)));
    for (run, rows) in &runs {
        ingest(&cold, *run, rows);
    }
    let mut keys: Vec<_> = all.into_keys().collect();
    keys.push((64, vec![]));
    keys.push((u16::MAX, b"no lane".to_vec()));
    keys.sort_by(|one, other| other.1.cmp(&one.1));
    let restored = place.restore(&place.snapshot(&cold).snapshot, "b0b0").unwrap();
    for cold in [&cold, &restored] {
        for (run, rows) in &runs {
            let expected: Vec<_> = keys.iter().map(|key| rows.get(key).cloned()).collect();
            assert!(get(cold, *run, &keys).unwrap() == expected, "{run:?}");
            let some = keys.iter().zip(&expected).step_by(100);
            some.for_each(|(key, state)| {
                assert_eq!(one_by_one(cold, *run, std::slice::from_ref(key)), Ok(vec![state.clone()]));
            });
            assert_eq!(get(cold, *run, &[]), Ok(vec![]));
        }
        assert!(matches!(get(cold, run(1, 0, 3), &keys), Err(ColdError::Damaged(_))));
        assert!(matches!(get(cold, run(1, 0, 3), &[]), Err(ColdError::Damaged(_))));
    }
}

/// Tables that were written before there were filters, beside new ones.
#[test]
fn tables_without_filters_stay_readable() {
    let place = Place::new();
    let mut cold = place.create("9a7e");
    let mut random = SmallRng::seed_from_u64(13);
    let (old, new) = (some_rows(&mut random, 2_000), some_rows(&mut random, 2_000));
    let mut table = BlockBasedOptions::default();
    table.set_block_size(BLOCK_BYTES);
    cold.options = Options::default();
    cold.options.set_block_based_table_factory(&table);
    cold.options.set_compression_type(DBCompressionType::Lz4);
    ingest(&cold, run(1, 0, 1), &old);
    let cold = place.restore(&place.snapshot(&cold).snapshot, "b0b0").unwrap();
    ingest(&cold, run(1, 0, 2), &new);
    let keys: Vec<_> = old.keys().chain(new.keys()).cloned().collect();
    for (run, rows) in [(run(1, 0, 1), &old), (run(1, 0, 2), &new)] {
        let expected: Vec<_> = keys.iter().map(|key| rows.get(key).cloned()).collect();
        assert!(get(&cold, run, &keys).unwrap() == expected, "{run:?}");
        assert_eq!(scan(&cold, run, 0..64).unwrap().len(), rows.len());
    }
}

#[test]
fn a_run_is_written_once_and_in_order() {
    let place = Place::new();
    let cold = place.create("9a7e");
    let rows = some_rows(&mut SmallRng::seed_from_u64(1), 10);
    ingest(&cold, run(1, 0, 1), &rows);
    let refused = |rows: &[(u16, &[u8], &[u8])], run| {
        assert!(matches!(cold.ingest(run, &mut Lent(rows.iter().copied(), None)), Err(ColdError::Failed(_))));
    };
    refused(&[(1, b"a", b"")], run(1, 0, 1));
    refused(&[(1, b"b", b""), (1, b"a", b"")], run(1, 0, 2));
    refused(&[(1, b"b", b""), (1, b"b", b"")], run(1, 0, 2));
    refused(&[(u16::MAX, b"b", b"")], run(1, 0, 2));
    // A merge whose source fails.
    let failure = ColdError::Damaged("elsewhere".to_owned());
    let mut failing = Lent([(1, &b"a"[..], &b""[..])].into_iter(), Some(failure.clone()));
    assert_eq!(cold.ingest(run(1, 0, 2), &mut failing), Err(failure));
    assert_eq!(scan(&cold, run(1, 0, 1), 0..64).unwrap().len(), rows.len());
    assert!(scan(&cold, run(1, 0, 2), 0..64).is_err());
    let left = fs::read_dir(cold.work.path()).unwrap().count();
    assert_eq!(left, 1, "no half-written table stays beside the database");
    // The name is free again after a failure.
    ingest(&cold, run(1, 0, 2), &rows);
}

#[test]
fn nothing_is_ever_compacted_or_logged() {
    let place = Place::new();
    let cold = place.create("9a7e");
    let rows = some_rows(&mut SmallRng::seed_from_u64(2), 50);
    for generation in 0..100u32 {
        ingest(&cold, run(1, i64::from(generation % 7), u64::from(generation)), &rows);
        if generation >= 20 {
            cold.remove(run(1, i64::from((generation - 20) % 7), u64::from(generation - 20))).unwrap();
        }
    }
    let files = cold.db.live_files().unwrap();
    assert_eq!(files.len(), 20);
    assert!(files.iter().all(|file| file.level == 6 && file.num_deletions == 0), "{files:?}");
    assert_eq!(cold.db.latest_sequence_number(), 0);
    assert_eq!(cold.bytes(), files.iter().map(|file| file.size as u64).sum::<u64>());
}

#[test]
fn a_second_snapshot_stores_only_what_is_new() {
    let place = Place::new();
    let (cold, first, rows) = stored(&place);
    assert!(!cold.changed_since_snapshot());
    let before = place.names();
    ingest(&cold, run(2, 0, 9), &rows[0]);
    cold.remove(run(1, 60_000, 0)).unwrap();
    assert!(cold.changed_since_snapshot());
    let frozen = cold.freeze().unwrap();
    assert!(cold.changed_since_snapshot(), "not before it is stored");
    let second = frozen.store(&place.storage).unwrap();
    assert!(!cold.changed_since_snapshot());
    // After a failure, the same may be stored again.
    assert_eq!(frozen.store(&place.storage).unwrap().snapshot, second.snapshot);

    let new: Vec<String> = place.names().into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new.iter().filter(|name| name.ends_with(".sst")).count(), 1, "{new:?}");
    assert_eq!(tables(&second.snapshot).len(), 3);
    let known = second.snapshot.files.iter().filter(|file| first.files.contains(file)).count();
    assert_eq!(known, 2);
    let full: u64 = second.snapshot.files.iter().map(|file| file.length).sum();
    assert!(second.written_bytes < full);

    // The files of a restored store keep their names too.
    let restored = place.restore(&second.snapshot, "b0b0").unwrap();
    assert!(!restored.changed_since_snapshot());
    ingest(&restored, run(2, 0, 10), &rows[0]);
    let third = place.snapshot(&restored).snapshot;
    let table_names = tables(&third);
    assert!(tables(&second.snapshot).iter().all(|name| table_names.contains(name)));
    assert_eq!(table_names.iter().filter(|name| name.starts_with("cold/b0b0")).count(), 1);
    // And the first snapshot is still whole.
    let old = place.restore(&first, "c0c0").unwrap();
    assert_eq!(scan(&old, run(1, 60_000, 0), 0..64).unwrap().len(), rows[0].len());
}

#[test]
fn a_snapshot_holds_what_was_there_when_it_was_frozen() {
    let place = Place::new();
    let (cold, _, rows) = stored(&place);
    ingest(&cold, run(3, 0, 20), &rows[1]);
    let frozen = cold.freeze().unwrap();
    // Workers go on while it is being stored: on this thread before, on another meanwhile.
    cold.remove(run(1, 60_000, 1)).unwrap();
    let snapshot = std::thread::scope(|scope| {
        scope.spawn(|| {
            for generation in 100..120 {
                ingest(&cold, run(3, 0, generation), &rows[2]);
            }
        });
        frozen.store(&place.storage).unwrap().snapshot
    });
    assert!(cold.changed_since_snapshot());
    // The frozen store may outlive the working one, and the restored one does not mind either.
    let restored = place.restore(&snapshot, "b0b0").unwrap();
    let runs: Vec<Run> = restored.runs().keys().copied().collect();
    assert_eq!(runs, [run(1, 60_000, 0), run(1, 60_000, 1), run(1, 60_000, 2), run(3, 0, 20)]);
    drop(cold);
    drop(frozen);
    for (at, &run) in runs.iter().enumerate() {
        let expected: Vec<ColdRow> = rows[[0, 1, 2, 1][at]]
            .iter()
            .map(|((lane, key), state)| ColdRow { lane: *lane, key: key.clone(), state: state.clone() })
            .collect();
        assert_eq!(scan(&restored, run, 0..64).unwrap(), expected);
    }
}

#[test]
fn several_workers_at_once() {
    let place = Place::new();
    let cold = place.create("9a7e");
    let rows = some_rows(&mut SmallRng::seed_from_u64(3), 500);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (cold, rows) = (&cold, &rows);
            scope.spawn(move || {
                for n in 0..25 {
                    let run = run(1, n, worker * 1_000 + n as u64);
                    ingest(cold, run, rows);
                    assert_eq!(scan(cold, run, 0..64).unwrap().len(), rows.len());
                    if n % 2 == 0 {
                        cold.remove(run).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(cold.runs().len(), 4 * 12);
    let snapshot = place.snapshot(&cold).snapshot;
    assert_eq!(place.restore(&snapshot, "b0b0").unwrap().runs().len(), 4 * 12);
}

/// Damages one file of a snapshot, and expects the restore to refuse and to name it.
fn check_refusal(damage: impl Fn(&Path), pick: impl Fn(&str) -> bool, kind: StorageErrorKind) {
    let place = Place::new();
    let (cold, snapshot, _) = stored(&place);
    drop(cold);
    let file = snapshot.files.iter().find(|file| pick(&file.local)).unwrap();
    let path = place.storage.path(&FileName::parse(&file.stored).unwrap());
    damage(&path);
    let error = place.restore(&snapshot, "b0b0").unwrap_err();
    assert_eq!((error.kind(), error.path()), (kind, path.as_path()), "{error}");
    assert_eq!(fs::read_dir(place.work()).unwrap().count(), 0, "the working directory goes");
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    let cut = |path: &Path| {
        let length = fs::metadata(path).unwrap().len();
        OpenOptions::new().write(true).open(path).unwrap().set_len(length - 10).unwrap();
    };
    let last_byte = |path: &Path| flip(path, fs::metadata(path).unwrap().len() - 1);
    let footer = |path: &Path| flip(path, fs::metadata(path).unwrap().len() - 50);
    let first_byte = |path: &Path| flip(path, 0);
    let gone = |path: &Path| fs::remove_file(path).unwrap();
    let table = |name: &str| name.ends_with(".sst");
    let manifest = |name: &str| name.starts_with("MANIFEST");
    let current = |name: &str| name == "CURRENT";

    check_refusal(cut, table, StorageErrorKind::Damaged);
    check_refusal(last_byte, table, StorageErrorKind::Damaged);
    check_refusal(footer, table, StorageErrorKind::Damaged);
    check_refusal(gone, table, StorageErrorKind::Missing);
    check_refusal(cut, manifest, StorageErrorKind::Damaged);
    check_refusal(first_byte, manifest, StorageErrorKind::Damaged);
    check_refusal(gone, manifest, StorageErrorKind::Missing);
    check_refusal(first_byte, current, StorageErrorKind::Damaged);
    check_refusal(gone, current, StorageErrorKind::Missing);
}

/// A store with a damaged block in the file that is named, and what had been stored, by generation.
fn damaged_in_a_block(place: &Place) -> (RocksCold, FileName, Vec<Rows>) {
    let (cold, snapshot, rows) = stored(place);
    drop(cold);
    let name = FileName::parse(tables(&snapshot)[0].to_str().unwrap()).unwrap();
    flip(&place.storage.path(&name), 1_000);
    (place.restore(&snapshot, "b0b0").unwrap(), name, rows)
}

#[test]
fn damage_in_a_block_is_an_error_of_the_scan_that_names_the_file() {
    let place = Place::new();
    let (cold, name, rows) = damaged_in_a_block(&place);
    let mut damaged = 0;
    for (generation, rows) in rows.iter().enumerate() {
        match scan(&cold, run(1, 60_000, generation as u64), 0..64) {
            Ok(scanned) => assert_eq!(scanned.len(), rows.len()),
            Err(ColdError::Damaged(message)) => {
                assert!(message.contains(name.as_str()), "{message}");
                damaged += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(damaged, 1);
}

#[test]
fn damage_in_a_block_is_an_error_of_the_look_up_that_names_the_file() {
    let place = Place::new();
    let (cold, name, rows) = damaged_in_a_block(&place);
    let mut damaged = vec![];
    for (generation, rows) in rows.iter().enumerate() {
        let run = run(1, 60_000, generation as u64);
        let keys: Vec<_> = rows.keys().cloned().collect();
        match one_by_one(&cold, run, &keys) {
            Ok(states) => assert!(states.into_iter().eq(rows.values().cloned().map(Some))),
            Err(ColdError::Damaged(message)) => {
                assert!(message.contains(name.as_str()), "{message}");
                damaged.push(run);
            }
            Err(error) => panic!("{error}"),
        }
    }
    let [run] = damaged[..] else { panic!("{damaged:?}") };
    // These would lie in the damaged block, which is not read for nearly all of them.
    let absent = |n: u16| (n % 10, format!("longer than any key: {n}").into_bytes());
    let read = (0..1_000).filter(|n| get(&cold, run, &[absent(*n)]) != Ok(vec![None])).count();
    assert!(read < 50, "{read} of 1,000 absent keys");
}

/// Every byte of a table that could be wrong is found: at the restore, the scan or the look-up, never as other rows.
#[test]
fn no_damage_goes_unnoticed() {
    let place = Place::new();
    let cold = place.create("9a7e");
    let rows = some_rows(&mut SmallRng::seed_from_u64(5), 40);
    ingest(&cold, run(1, 0, 1), &rows);
    let snapshot = place.snapshot(&cold).snapshot;
    let expected = scan(&cold, run(1, 0, 1), 0..64).unwrap();
    let mut keys: Vec<_> = rows.keys().cloned().collect();
    keys.push((3, b"longer than any key".to_vec()));
    let states: Vec<_> = keys.iter().map(|key| rows.get(key).cloned()).collect();
    drop(cold);
    let path = place.storage.path(&FileName::parse(tables(&snapshot)[0].to_str().unwrap()).unwrap());
    let length = fs::metadata(&path).unwrap().len();
    let mut found = 0;
    for at in (0..length).step_by(37) {
        flip(&path, at);
        match place.restore(&snapshot, "b0b0") {
            Ok(cold) => match scan(&cold, run(1, 0, 1), 0..64) {
                // Properties and the like say nothing about rows, and a damaged filter lets every key pass.
                Ok(rows) => {
                    assert_eq!(rows, expected, "byte {at} of {length}");
                    for get in [get, one_by_one] {
                        let found = get(&cold, run(1, 0, 1), &keys);
                        assert_eq!(found, Ok(states.clone()), "byte {at} of {length}");
                    }
                }
                Err(ColdError::Damaged(_)) => found += 1,
                Err(error) => panic!("byte {at} of {length}: {error}"),
            },
            Err(error) => {
                assert_eq!(error.kind(), StorageErrorKind::Damaged, "byte {at} of {length}: {error}");
                assert_eq!(error.path(), path, "{error}");
                found += 1;
            }
        }
        flip(&path, at);
    }
    assert!(found > 10);
    assert_eq!(scan(&place.restore(&snapshot, "b0b0").unwrap(), run(1, 0, 1), 0..64).unwrap(), expected);
}
