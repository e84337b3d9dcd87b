//! Open addressing for keys that fit in eight bytes: one 16-byte entry a probe, so a lookup touches one cache line.

pub(crate) const EMPTY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u64,
    owner: u32,
    slot: u32,
}

const FREE: Entry = Entry { key: 0, owner: 0, slot: EMPTY };
const FIRST_CAPACITY: usize = 16;

/// Maps (key, owner) to a slot. Linear probing, backward-shift deletion, at most 5/8 full.
#[derive(Debug)]
pub(crate) struct IntegerTable {
    entries: Vec<Entry>,
    mask: usize,
    len: usize,
}

/// Spreads keys over the table; not the key-group hash, and free to change.
#[inline(always)]
fn spread(key: u64, owner: u32) -> usize {
    let seeded = key ^ (owner as u64).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0x9e37_79b9_7f4a_7c15;
    let product = (seeded as u128).wrapping_mul(0xa076_1d64_78bd_642f);
    ((product as u64) ^ (product >> 64) as u64) as usize
}

impl IntegerTable {
    pub fn new() -> Self {
        IntegerTable { entries: vec![FREE; FIRST_CAPACITY], mask: FIRST_CAPACITY - 1, len: 0 }
    }

    /// The slot of a key, or [`EMPTY`].
    #[inline(always)]
    pub fn find(&self, key: u64, owner: u32) -> u32 {
        let mut at = spread(key, owner) & self.mask;
        loop {
            let entry = self.entries[at & self.mask];
            if entry.slot == EMPTY || (entry.key == key && entry.owner == owner) {
                return entry.slot;
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Adds a key that is not there.
    pub fn insert(&mut self, key: u64, owner: u32, slot: u32) {
        if (self.len + 1) * 8 > self.entries.len() * 5 {
            self.grow();
        }
        self.place(Entry { key, owner, slot });
        self.len += 1;
    }

    fn place(&mut self, entry: Entry) {
        let mut at = spread(entry.key, entry.owner) & self.mask;
        while self.entries[at].slot != EMPTY {
            at = (at + 1) & self.mask;
        }
        self.entries[at] = entry;
    }

    fn grow(&mut self) {
        self.resize(self.entries.len() * 2);
    }

    /// Makes room for that many more keys at once.
    pub fn reserve(&mut self, additional: usize) {
        let mut capacity = self.entries.len();
        while (self.len + additional) * 8 > capacity * 5 {
            capacity *= 2;
        }
        if capacity > self.entries.len() {
            self.resize(capacity);
        }
    }

    /// To a power of two.
    fn resize(&mut self, capacity: usize) {
        let old = std::mem::replace(&mut self.entries, vec![FREE; capacity]);
        self.mask = capacity - 1;
        for entry in old {
            if entry.slot != EMPTY {
                self.place(entry);
            }
        }
    }

    pub fn remove(&mut self, key: u64, owner: u32) {
        let mut at = spread(key, owner) & self.mask;
        loop {
            let entry = self.entries[at];
            if entry.slot == EMPTY {
                return;
            }
            if entry.key == key && entry.owner == owner {
                break;
            }
            at = (at + 1) & self.mask;
        }
        self.len -= 1;
        // Close the gap: an entry may move back unless its home lies between the gap and itself.
        let mut gap = at;
        let mut next = (at + 1) & self.mask;
        while self.entries[next].slot != EMPTY {
            let home = spread(self.entries[next].key, self.entries[next].owner) & self.mask;
            let from_home = next.wrapping_sub(home) & self.mask;
            let from_gap = next.wrapping_sub(gap) & self.mask;
            if from_home >= from_gap {
                self.entries[gap] = self.entries[next];
                gap = next;
            }
            next = (next + 1) & self.mask;
        }
        self.entries[gap] = FREE;
    }

    /// Forgets all keys; keeps the memory if it is small, so that a table reused for every batch does not shrink and grow.
    pub fn clear(&mut self) {
        if self.len == 0 {
            return;
        }
        self.entries.fill(FREE);
        self.len = 0;
    }
}
