//! Positions in the write-ahead log, and a record of the position that a server must have replayed before an identity
//! may read from that server.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de};

use crate::Identity;

/// A position in the write-ahead log: the timeline, whose number grows with each promotion, and the log sequence number
/// (LSN) on that timeline.
///
/// A service that keeps no state between two requests can use it as a token: the service sends the text of the position
/// (`1-0/16B3748`, safe in a header or a cookie) to the client with a response, and the client sends it back with the
/// next request. If a client invents a position, the only consequences are a bounded wait and a read on the primary.
///
/// ```
/// let position: rls::LogPosition = "1-0/16B3748".parse()?;
/// assert_eq!(position.to_string(), "1-0/16B3748");
/// assert!(position < "2-0/10".parse()?);
/// # Ok::<(), rls::InvalidLogPosition>(())
/// ```
// The order of the fields matters: positions are compared by timeline first, because what an old primary wrote after a
// promotion is not in the new log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    pub(crate) timeline: u32,
    pub(crate) lsn: u64,
}

/// The text is not a [`LogPosition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log position must be written like 1-0/16B3748")]
pub struct InvalidLogPosition;

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:X}/{:X}", self.timeline, self.lsn >> 32, self.lsn & u64::from(u32::MAX))
    }
}

impl FromStr for LogPosition {
    type Err = InvalidLogPosition;

    fn from_str(text: &str) -> Result<Self, InvalidLogPosition> {
        let parse = || {
            let (timeline, lsn) = text.split_once('-')?;
            if !timeline.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            Some(Self { timeline: timeline.parse().ok()?, lsn: parse_lsn(lsn)? })
        };
        parse().ok_or(InvalidLogPosition)
    }
}

/// Parses an LSN as PostgreSQL prints it: `0/16B3748`.
pub(crate) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let parse_half = |part: &str| {
        let is_hex = !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        u32::from_str_radix(part, 16).ok().filter(|_| is_hex).map(u64::from)
    };
    Some(parse_half(high)? << 32 | parse_half(low)?)
}

impl Serialize for LogPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a server must fulfil before an identity may read from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadRequirement {
    /// The log position that the server must have replayed.
    pub(crate) position: Option<LogPosition>,
    /// The number of the identity's last *commit without position*: one whose log position was not received, so that at
    /// least its position is unknown, and perhaps also its outcome. As long as this is set, only the primary may be
    /// read.
    pub(crate) last_commit_without_position: Option<u64>,
}

impl ReadRequirement {
    /// Returns the requirement that implies both.
    fn merge(self, other: Self) -> Self {
        Self {
            position: self.position.max(other.position),
            last_commit_without_position: self.last_commit_without_position.max(other.last_commit_without_position),
        }
    }

    /// Returns the same requirement, with at least this position.
    pub(crate) fn with_min_position(self, position: Option<LogPosition>) -> Self {
        self.merge(Self { position, last_commit_without_position: None })
    }
}

/// Maximum number of identities in each of the two generations, `recent` and `older`.
const MAX_IDENTITIES_PER_GENERATION: usize = 8192;

/// How long a commit without position may still take effect after it was recorded: when the connection was lost, the
/// server may have been working on the commit.
const MAX_COMMIT_DURATION: Duration = Duration::from_secs(60);

/// The read requirement of each identity, in two generations. When both are full, the older generation is dropped. What
/// its requirements demand together is kept as `floor`, which applies to all identities without an entry. By then
/// replicas have usually replayed the position of `floor`, so nobody waits for it.
#[derive(Debug, Default)]
pub(crate) struct ReadRequirementsByIdentity(Mutex<RememberedRequirements>);

/// What [`ReadRequirementsByIdentity`] remembers. The keys are those of [`Identity::read_requirement_key`].
#[derive(Debug, Default)]
struct RememberedRequirements {
    recent: HashMap<u64, ReadRequirement>,
    older: HashMap<u64, ReadRequirement>,
    floor: ReadRequirement,
    /// How many commits without position there have been so far. The first one has the number 1, the next one 2, and so
    /// on.
    commit_without_position_count: u64,
    /// The commits without position up to this number have ended before this position of the primary. So a server that
    /// has replayed the position shows them.
    covered: Option<(u64, LogPosition)>,
    /// The commits without position up to this number were recorded before this time. Once [`MAX_COMMIT_DURATION`] has
    /// passed, they have ended, and the primary's next position covers them.
    awaiting_cover: Option<(u64, Instant)>,
}

impl ReadRequirementsByIdentity {
    /// Returns what a server must fulfil before the identity may read from it.
    pub(crate) fn get(&self, identity: &Identity) -> ReadRequirement {
        let remembered = self.lock();
        let key = &identity.read_requirement_key();
        let entry = remembered.recent.get(key).or_else(|| remembered.older.get(key)).copied();
        remembered.replace_covered_commit(entry.unwrap_or(remembered.floor))
    }

    /// Records that the identity has written or read up to the position.
    pub(crate) fn record(&self, identity: &Identity, position: LogPosition) {
        self.lock()
            .update(identity.read_requirement_key(), |entry| entry.position = entry.position.max(Some(position)));
    }

    /// Forgets every requirement, because the log positions turned out to be those of another cluster.
    pub(crate) fn clear(&self) {
        let mut remembered = self.lock();
        // Commits in progress compare their numbers with the count, so it must not begin again.
        let commit_without_position_count = remembered.commit_without_position_count;
        *remembered = RememberedRequirements { commit_without_position_count, ..Default::default() };
    }

    /// Returns how many commits without position there have been so far.
    pub(crate) fn commit_without_position_count(&self) -> u64 {
        self.lock().commit_without_position_count
    }

    /// Records the log position of a commit on the primary, and forgets the identity's commits without position that
    /// were recorded before this commit was sent, but not those recorded since. `count_before` is how many commits
    /// without position of all identities there were when this commit was sent.
    pub(crate) fn record_primary_commit(&self, identity: &Identity, position: LogPosition, count_before: u64) {
        self.lock().update(identity.read_requirement_key(), |entry| {
            entry.position = entry.position.max(Some(position));
            entry.last_commit_without_position =
                entry.last_commit_without_position.filter(|number| *number > count_before);
        });
    }

    /// Records a commit without position of the identity: a commit whose log position was not received, or whose
    /// outcome is unknown. In both cases the next reads of the identity use the primary.
    pub(crate) fn record_commit_without_position(&self, identity: &Identity) {
        let mut remembered = self.lock();
        remembered.commit_without_position_count += 1;
        let number = remembered.commit_without_position_count;
        remembered.update(identity.read_requirement_key(), |entry| entry.last_commit_without_position = Some(number));
    }

    /// Records a log position that the primary reported, in answer to a question that was sent after `asked_at`. The
    /// position *covers* commits without position that were recorded at least [`MAX_COMMIT_DURATION`] before
    /// `asked_at`: they must have ended, so a server that has replayed the position shows them. If no position ever
    /// covered them, one such commit of an identity whose entry is dropped would keep the reads of all identities
    /// without an entry on the primary for good.
    pub(crate) fn record_primary_position(&self, position: LogPosition, asked_at: Instant) {
        let mut remembered = self.lock();
        let count = remembered.commit_without_position_count;
        match remembered.awaiting_cover {
            Some((number, since)) if asked_at.saturating_duration_since(since) >= MAX_COMMIT_DURATION => {
                remembered.covered = Some((number, position));
                remembered.awaiting_cover = None;
            }
            None if remembered.covered.map_or(0, |(number, _)| number) < count => {
                remembered.awaiting_cover = Some((count, Instant::now()));
            }
            _ => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RememberedRequirements> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RememberedRequirements {
    /// If a position covers the requirement's commit without position, returns the requirement with that position in
    /// place of the commit. Otherwise returns it unchanged.
    fn replace_covered_commit(&self, requirement: ReadRequirement) -> ReadRequirement {
        match (requirement.last_commit_without_position, self.covered) {
            (Some(number), Some((covered_number, position))) if number <= covered_number => {
                ReadRequirement { last_commit_without_position: None, ..requirement.with_min_position(Some(position)) }
            }
            _ => requirement,
        }
    }

    fn update(&mut self, key: u64, change: impl FnOnce(&mut ReadRequirement)) {
        if !self.recent.contains_key(&key) {
            if self.recent.len() >= MAX_IDENTITIES_PER_GENERATION {
                let dropped_generation = std::mem::replace(&mut self.older, std::mem::take(&mut self.recent));
                let dropped = dropped_generation.into_values().map(|entry| self.replace_covered_commit(entry));
                self.floor = dropped.fold(self.replace_covered_commit(self.floor), ReadRequirement::merge);
            }
            let entry = self.older.get(&key).copied().unwrap_or(self.floor);
            self.recent.insert(key, entry);
        }
        if let Some(entry) = self.recent.get_mut(&key) {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{
        LogPosition, MAX_COMMIT_DURATION, MAX_IDENTITIES_PER_GENERATION, ReadRequirement, ReadRequirementsByIdentity,
    };
    use crate::Identity;

    /// Returns an identity that is different for each number.
    fn numbered_identity(number: usize) -> Identity {
        Identity::new(format!("role_{number}"))
    }

    #[test]
    fn a_position_parses_from_its_text_and_not_from_other_texts() {
        for text in ["1-0/0", "1-0/16B3748", "4294967295-FFFFFFFF/FFFFFFFF"] {
            let position: LogPosition = text.parse().unwrap();
            assert_eq!(position.to_string(), text);
            let json = serde_json::to_string(&position).unwrap();
            assert_eq!(serde_json::from_str::<LogPosition>(&json).unwrap(), position);
        }
        for text in ["", "-", "1", "1-", "1-/", "1-0/", "-0/0", "1-0/1-", "+1-0/0", "1-+0/0", "1-0/G", "1-0/100000000"]
        {
            assert!(text.parse::<LogPosition>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_position_on_a_later_timeline_is_later() {
        let [old, new] = ["1-F/0", "2-0/1"].map(|text| text.parse::<LogPosition>().unwrap());
        assert!(new > old);
    }

    #[test]
    fn memory_is_bounded_and_an_identity_without_an_entry_still_reads_its_own_writes() {
        let requirements = ReadRequirementsByIdentity::default();
        let at = |number: usize| LogPosition { timeline: 1, lsn: number as u64 };
        let identity_count = MAX_IDENTITIES_PER_GENERATION * 5;
        for number in 0..identity_count {
            requirements.record(&numbered_identity(number), at(number));
        }
        // Of these four identities, the first three have been dropped, and the last still has an entry.
        for number in [0, 1, MAX_IDENTITIES_PER_GENERATION, identity_count - 1] {
            assert!(requirements.get(&numbered_identity(number)).position >= Some(at(number)), "{number}");
        }
        let last_number = identity_count - 1;
        assert_eq!(requirements.get(&numbered_identity(last_number)).position, Some(at(last_number)));
        let remembered = requirements.lock();
        assert!(remembered.recent.len() + remembered.older.len() <= 2 * MAX_IDENTITIES_PER_GENERATION);
    }

    #[test]
    fn after_a_commit_without_position_an_identity_reads_on_the_primary_until_a_later_commit_has_succeeded() {
        let (requirements, ada) = (ReadRequirementsByIdentity::default(), numbered_identity(0));
        let at = |lsn| LogPosition { timeline: 1, lsn };
        requirements.record_commit_without_position(&ada);
        // Recording the position of a read does not settle whether the commit has succeeded.
        requirements.record(&ada, at(1));
        assert!(requirements.get(&ada).last_commit_without_position.is_some());
        requirements.record_primary_commit(&ada, at(2), requirements.commit_without_position_count());
        assert_eq!(
            requirements.get(&ada),
            ReadRequirement { position: Some(at(2)), last_commit_without_position: None }
        );
    }

    #[test]
    fn a_commit_forgets_only_commits_without_position_that_were_recorded_before_it_was_sent() {
        let (requirements, [ada, ben]) = (ReadRequirementsByIdentity::default(), [0, 1].map(numbered_identity));
        let at = |lsn| LogPosition { timeline: 1, lsn };
        requirements.record_commit_without_position(&ada);
        let count_before = requirements.commit_without_position_count();
        requirements.record_commit_without_position(&ada);
        requirements.record_commit_without_position(&ben);
        requirements.record_primary_commit(&ada, at(2), count_before);
        assert!(requirements.get(&ada).last_commit_without_position.is_some());
        requirements.record_primary_commit(&ada, at(3), requirements.commit_without_position_count());
        assert_eq!(
            requirements.get(&ada),
            ReadRequirement { position: Some(at(3)), last_commit_without_position: None }
        );
        assert!(
            requirements.get(&ben).last_commit_without_position.is_some(),
            "a commit of Ada must not settle that of Ben"
        );
    }

    #[test]
    fn a_later_primary_position_covers_a_commit_without_position_of_a_forgotten_identity() {
        let (requirements, [ada, ben]) = (ReadRequirementsByIdentity::default(), [0, 1].map(numbered_identity));
        let at = |lsn| LogPosition { timeline: 1, lsn };
        requirements.record_commit_without_position(&ada);
        for number in 2..MAX_IDENTITIES_PER_GENERATION * 3 {
            requirements.record(&numbered_identity(number), at(1));
        }
        assert!(requirements.get(&ben).last_commit_without_position.is_some(), "the floor applies to Ben");
        let started_at = Instant::now();
        requirements.record_primary_position(at(2), started_at);
        // The wait for Ada's commit has begun. The position that covers it (4, below) does not cover this later commit.
        requirements.record_commit_without_position(&numbered_identity(2));
        requirements.record_primary_position(at(3), started_at + MAX_COMMIT_DURATION / 2);
        assert!(requirements.get(&ben).last_commit_without_position.is_some(), "the commit may still take effect");
        requirements.record_primary_position(at(4), Instant::now() + MAX_COMMIT_DURATION);
        let covered = ReadRequirement { position: Some(at(4)), last_commit_without_position: None };
        assert_eq!((requirements.get(&ada), requirements.get(&ben)), (covered, covered));
        assert!(requirements.get(&numbered_identity(2)).last_commit_without_position.is_some());
        // What is dropped now does not bring the covered commit back.
        requirements.record_primary_commit(&numbered_identity(2), at(5), 2);
        for number in MAX_IDENTITIES_PER_GENERATION * 3..MAX_IDENTITIES_PER_GENERATION * 6 {
            requirements.record(&numbered_identity(number), at(5));
        }
        assert_eq!(requirements.get(&ben).last_commit_without_position, None);
    }
}
