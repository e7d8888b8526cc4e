//! Every input that is kept, and mutations of it that are the same on every run, through the targets.

use std::path::Path;

use onceflow_fuzz::TARGETS;

/// Mutations of a target's corpus.
const MUTATIONS: usize = 3_000;

/// Longest input that a mutation makes, bytes.
const LONGEST: usize = 4_096;

/// Numbers from a seed: xorshift64*, after Vigna, "An experimental exploration of Marsaglia's xorshift generators".
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// The inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new("corpus").join(target);
    let entries =
        std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{} has only {} files", directory.display(), files.len());
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One input made of one or two others.
fn mutation(inputs: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = inputs[numbers.below(inputs.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let length = numbers.below(16).min(bytes.len() - at);
        match numbers.below(6) {
            0 => drop(bytes.drain(at..at + length)),
            1 => bytes.insert(at, numbers.next() as u8),
            2 => bytes.extend_from_within(at..at + length),
            3 => {
                let other = &inputs[numbers.below(inputs.len())];
                let from = numbers.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            4 => bytes.truncate(at),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// Runs a target, and says with which input it failed.
fn run(target: fn(&[u8]), what: &str, bytes: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target(bytes));
    assert!(outcome.is_ok(), "{what}: {:?} = {bytes:?}", String::from_utf8_lossy(bytes));
}

fn check(name: &str) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let inputs = corpus(name);
    run(*target, "no bytes", b"");
    for bytes in &inputs {
        run(*target, "an input of the corpus", bytes);
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for i in 0..MUTATIONS {
        run(*target, &format!("mutation {i}"), &mutation(&inputs, &mut numbers));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn no_target_is_left_out() {
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

targets! { json key state segment control pipeline sql window }
