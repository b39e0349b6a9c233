//! Answers of services that are asked over the network, which count for a while.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// A question, such as a token, of which the text is not kept.
pub(super) type Question = [u8; 32];

/// When an answer was given, how long it counts, and what it is.
type Answer<V> = (Instant, Duration, V);

/// The question of a text.
pub(super) fn question(text: &str) -> Question {
    Sha256::digest(text.as_bytes()).into()
}

/// The answers to the last questions.
pub(super) struct Remembered<V> {
    known: Mutex<HashMap<Question, Answer<V>>>,
    most: usize,
}

impl<V: Clone> Remembered<V> {
    /// Remembers so many answers at once.
    pub(super) fn new(most: usize) -> Self {
        Self { known: Mutex::default(), most }
    }

    /// The answer to a question, if it still counts.
    pub(super) fn get(&self, question: &Question) -> Option<V> {
        let known = self.known.lock();
        known.get(question).filter(|answer| counts(answer)).map(|(_, _, value)| value.clone())
    }

    /// Remembers an answer for as long as it counts.
    pub(super) fn put(&self, question: Question, value: V, duration: Duration) {
        let mut known = self.known.lock();
        if known.len() >= self.most {
            known.retain(|_, answer| counts(answer));
        }
        // All are in time: they are forgotten rather than looked through each time, and what comes is remembered.
        if known.len() >= self.most {
            known.clear();
        }
        known.insert(question, (Instant::now(), duration, value));
    }
}

fn counts<V>((at, duration, _): &Answer<V>) -> bool {
    at.elapsed() < *duration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_count_for_a_while_and_not_too_many_are_kept() {
        let remembered = Remembered::new(2);
        let ask = |text: &str| remembered.get(&question(text));
        remembered.put(question("a"), 1, Duration::from_secs(10));
        remembered.put(question("b"), 2, Duration::MAX);
        assert_eq!((ask("a"), ask("b"), ask("c")), (Some(1), Some(2), None));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((ask("a"), ask("b")), (None, Some(2)));
        remembered.put(question("c"), 3, Duration::MAX);
        assert_eq!((ask("b"), ask("c")), (Some(2), Some(3)), "what was over made place");
        remembered.put(question("d"), 4, Duration::MAX);
        assert_eq!((ask("b"), ask("c"), ask("d")), (None, None, Some(4)));
    }
}
