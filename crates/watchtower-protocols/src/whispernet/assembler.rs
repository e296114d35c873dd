//! Puts the parts of files together, in any order ([whispernet: 10]).
//!
//! Keeps which parts came, and no contents: it says what is new, and its caller
//! writes that where the part belongs. It does not check the hash of a whole
//! either: whoever wrote a file reads it again when its last part is there,
//! which proves what was saved, in memory that no order of the parts changes.
//!
//! Parts belong together that say the same of their file and are from the same
//! sender. So a part that contradicts others disturbs nothing: it is of another
//! file.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use watchtower_hub::Timestamp;

use super::events::Shown;
use super::identity::PublicKey;
use super::part::{PARTS_MAX, Part, Whole};

/// How many files are remembered that are over, so that their late parts begin
/// nothing.
const ENDED_MAX: usize = 256;

/// How much of files is under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// How long one file may be, in bytes.
    pub file_bytes: u64,
    /// How many bytes all that are under way may have when they are whole.
    pub bytes: u64,
    /// How many may be under way.
    pub files: usize,
    /// How many of them from one sender.
    pub files_per_sender: usize,
    /// How long to wait for the next part of one.
    pub idle: Duration,
    /// How long one may take in all.
    pub age: Duration,
}

impl Default for FileLimits {
    fn default() -> FileLimits {
        FileLimits {
            file_bytes: 4 << 30,
            bytes: 8 << 30,
            files: 16,
            files_per_sender: 4,
            idle: Duration::from_secs(2 * 60),
            age: Duration::from_secs(6 * 60 * 60),
        }
    }
}

/// A file under way, the same for all its parts. Never used for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub u64);

/// Who sends parts: the key that signed them, or else the address that they
/// name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender(SenderKey);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SenderKey {
    Signed(PublicKey),
    /// The hash of `Addr`, which may be any text.
    Named([u8; 32]),
}

impl Sender {
    /// Whoever sent a message.
    pub fn of(shown: &Shown) -> Sender {
        let named = || Sha256::digest(shown.addr.as_deref().unwrap_or_default()).into();
        Sender(shown.key.map_or_else(|| SenderKey::Named(named()), SenderKey::Signed))
    }
}

/// Why a file does not become whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransferError {
    /// It is too long.
    #[error("it has {bytes} bytes, and may have {bytes_max}")]
    TooLarge {
        /// How long it says that it is.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// It comes in too many parts.
    #[error("it has {0} parts, and may have {PARTS_MAX}")]
    TooManyParts(u64),
    /// There are too many, of all senders or of one.
    #[error("there are {0} files under way already")]
    TooManyFiles(usize),
    /// All that are under way would be too long together.
    #[error("the files under way have {0} bytes already")]
    TooManyBytes(u64),
    /// Parts did not come in time.
    #[error("{parts_missing} of {parts} parts did not come")]
    Missing {
        /// How many did not.
        parts_missing: u64,
        /// How many it has.
        parts: u64,
    },
}

/// What is to be done with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Write its contents at its [`offset`](Part::offset).
    New {
        /// The file.
        transfer: TransferId,
        /// How many bytes of the file came.
        bytes_done: u64,
        /// Whether that is all of it: the hash is to be checked, and the
        /// transfer is over.
        is_last: bool,
    },
    /// Nothing: it came before, or its file is over.
    Repeated,
    /// Nothing: its file is not taken. Told once for a file.
    Refused {
        /// The file.
        transfer: TransferId,
        /// Why.
        error: TransferError,
    },
}

/// The files that are under way.
pub struct Assembler {
    limits: FileLimits,
    /// Invariant: at most `limits.files`.
    under_way: BTreeMap<(Sender, Whole), UnderWay>,
    /// The last ones that are over. Invariant: at most [`ENDED_MAX`].
    ended: VecDeque<(Sender, Whole)>,
    transfers: u64,
}

struct UnderWay {
    transfer: TransferId,
    /// By number. Invariant: at most [`PARTS_MAX`].
    came: Box<[bool]>,
    /// Invariant: how many of `came` are false.
    parts_missing: u64,
    bytes_done: u64,
    since: Timestamp,
    /// When the last part came that was new.
    grew: Timestamp,
}

impl Assembler {
    /// Nothing is under way.
    pub fn new(limits: FileLimits) -> Assembler {
        Assembler { limits, under_way: BTreeMap::new(), ended: VecDeque::new(), transfers: 0 }
    }

    /// An id for a file that is not put together here: one that goes out, say.
    pub fn new_transfer(&mut self) -> TransferId {
        self.transfers += 1;
        TransferId(self.transfers)
    }

    /// A part came.
    pub fn take(&mut self, part: &Part, sender: Sender, now: Timestamp) -> Taken {
        let file = (sender, part.whole.clone());
        if self.ended.contains(&file) {
            return Taken::Repeated;
        }
        if !self.under_way.contains_key(&file) {
            let transfer = self.new_transfer();
            if let Err(error) = self.may_begin(&part.whole, sender) {
                self.remember_ended(file);
                return Taken::Refused { transfer, error };
            }
            self.under_way.insert(file.clone(), UnderWay::new(transfer, &part.whole, now));
        }
        let Some(under_way) = self.under_way.get_mut(&file) else { return Taken::Repeated };
        if !under_way.grow(part, now) {
            return Taken::Repeated;
        }
        let UnderWay { transfer, bytes_done, parts_missing, .. } = *under_way;
        let is_last = parts_missing == 0;
        if is_last {
            self.under_way.remove(&file);
            self.remember_ended(file);
        }
        Taken::New { transfer, bytes_done, is_last }
    }

    fn may_begin(&self, whole: &Whole, sender: Sender) -> Result<(), TransferError> {
        let FileLimits { file_bytes, bytes, files, files_per_sender, .. } = self.limits;
        if whole.parts() > PARTS_MAX {
            return Err(TransferError::TooManyParts(whole.parts()));
        }
        if whole.bytes() > file_bytes {
            return Err(TransferError::TooLarge { bytes: whole.bytes(), bytes_max: file_bytes });
        }
        let of_sender = self.under_way.keys().filter(|(other, _)| *other == sender).count();
        if of_sender >= files_per_sender {
            return Err(TransferError::TooManyFiles(of_sender));
        }
        if self.under_way.len() >= files {
            return Err(TransferError::TooManyFiles(files));
        }
        // At most `files` numbers of at most `file_bytes`.
        let claimed = self.under_way.keys().fold(0, |sum: u64, (_, other)| sum.saturating_add(other.bytes()));
        if claimed.saturating_add(whole.bytes()) > bytes {
            return Err(TransferError::TooManyBytes(claimed));
        }
        Ok(())
    }

    /// A file cannot be saved: further parts of it are nothing.
    pub fn give_up(&mut self, transfer: TransferId) {
        let file = self.under_way.iter().find(|(_, under_way)| under_way.transfer == transfer);
        if let Some(file) = file.map(|(file, _)| file.clone()) {
            self.under_way.remove(&file);
            self.remember_ended(file);
        }
    }

    /// When [`expire`](Assembler::expire) is due.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.under_way.values().map(|under_way| under_way.deadline(&self.limits)).min()
    }

    /// The files that are given up since their parts did not come in time.
    pub fn expire(&mut self, now: Timestamp) -> Vec<(TransferId, Whole, TransferError)> {
        let limits = self.limits;
        let late = self.under_way.extract_if(.., |_, under_way| under_way.deadline(&limits) <= now);
        let late: Vec<_> = late.collect();
        for (file, _) in &late {
            self.remember_ended(file.clone());
        }
        let error = |under_way: &UnderWay| TransferError::Missing {
            parts_missing: under_way.parts_missing,
            parts: under_way.came.len() as u64,
        };
        late.into_iter().map(|((_, whole), late)| (late.transfer, whole, error(&late))).collect()
    }

    fn remember_ended(&mut self, file: (Sender, Whole)) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(file);
    }
}

impl UnderWay {
    fn new(transfer: TransferId, whole: &Whole, now: Timestamp) -> UnderWay {
        let parts = whole.parts();
        debug_assert!(parts <= PARTS_MAX);
        let came = vec![false; parts as usize].into_boxed_slice();
        UnderWay { transfer, came, parts_missing: parts, bytes_done: 0, since: now, grew: now }
    }

    /// Whether the part is new.
    fn grow(&mut self, part: &Part, now: Timestamp) -> bool {
        let index = usize::try_from(part.number - 1).ok();
        let Some(came) = index.and_then(|index| self.came.get_mut(index)).filter(|came| !**came) else {
            return false;
        };
        *came = true;
        self.parts_missing -= 1;
        self.bytes_done += part.contents.len() as u64;
        self.grew = now;
        true
    }

    fn deadline(&self, limits: &FileLimits) -> Timestamp {
        self.grew.after(limits.idle).min(self.since.after(limits.age))
    }
}
