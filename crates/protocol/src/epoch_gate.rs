//! What belongs to the open epoch, and what has to wait for the next one.
//!
//! A worker's messages come in the order in which it sent them, its barrier among them: whatever follows the barrier belongs to the
//! next epoch and is held until that is opened. Other workers' messages of the open epoch pass meanwhile.

use std::collections::VecDeque;

/// Holds back what workers send after their barrier.
#[derive(Debug)]
pub struct EpochGate<T> {
    /// By worker.
    at_barrier: Vec<bool>,
    held: VecDeque<T>,
}

impl<T> EpochGate<T> {
    /// A gate for `workers` workers, none of which is at a barrier.
    pub fn new(workers: usize) -> EpochGate<T> {
        EpochGate { at_barrier: vec![false; workers], held: VecDeque::new() }
    }

    /// A worker's message, if it belongs to the open epoch; else it is held.
    pub fn admit(&mut self, worker: usize, message: T) -> Option<T> {
        if self.at_barrier[worker] {
            self.held.push_back(message);
            return None;
        }
        Some(message)
    }

    /// A worker's barrier, admitted: whether it was the last one of the epoch.
    pub fn at_barrier(&mut self, worker: usize) -> bool {
        self.at_barrier[worker] = true;
        self.at_barrier.iter().all(|at| *at)
    }

    /// Opens the next epoch. What was held is to be admitted again, in order: there may be a barrier among it.
    pub fn open_next(&mut self) -> VecDeque<T> {
        self.at_barrier.fill(false);
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::EpochGate;

    #[test]
    fn a_barrier_separates_the_epochs_of_its_worker_only() {
        let mut gate = EpochGate::new(2);
        assert_eq!(gate.admit(0, "a1"), Some("a1"));
        assert!(!gate.at_barrier(0));
        assert_eq!(gate.admit(0, "a2"), None);
        assert_eq!(gate.admit(1, "b1"), Some("b1"));
        assert!(gate.at_barrier(1));
        assert_eq!(gate.admit(1, "b2"), None);
        assert_eq!(gate.open_next(), ["a2", "b2"]);
        assert_eq!(gate.admit(0, "a2"), Some("a2"));
    }
}
