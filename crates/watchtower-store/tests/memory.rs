//! The store in memory keeps what every store promises.

use watchtower_store::conformance::Subject;
use watchtower_store::{MemoryStore, Store};

struct Memory(MemoryStore);

impl Subject for Memory {
    fn open(&mut self) -> Box<dyn Store> {
        self.0 = self.0.reopened();
        Box::new(self.0.clone())
    }
}

watchtower_store::conformance!(Memory(MemoryStore::new()));
