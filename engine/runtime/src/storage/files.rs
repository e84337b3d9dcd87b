//! Large new files on a file system, written past the page cache.
//!
//! Whoever writes them waits until they are on the disk anyway. Through the page cache every byte would be copied into memory
//! that nobody reads again, and fetching that memory costs more than all other work on the file. What a file is for, and when
//! it may be deleted, is decided elsewhere.

use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3Default;

/// Memory, places in the file and lengths of direct writes are multiples of this; no disk asks for more.
const ALIGNMENT: usize = 4096;
/// What one write takes: a few of them a second, none so long that it holds up other work of the disk.
const CHUNK: usize = 4 << 20;
/// Folders disappear with their last file, also right after they were made for the next one.
const ATTEMPTS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    Past,
    Through,
}

/// Writes a file that does not exist yet and syncs it and its folder; returns the checksum of its bytes. Nothing is left of
/// it after an error.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<u64> {
    match attempt(path, bytes, Cache::Past) {
        // The file system or its disk cannot.
        Err(error) if error.kind() == ErrorKind::InvalidInput => attempt(path, bytes, Cache::Through),
        result => result,
    }
}

fn attempt(path: &Path, bytes: &[u8], cache: Cache) -> io::Result<u64> {
    let file = create(path, cache)?;
    let written = fill(file, bytes, cache).and_then(|checksum| sync_folder(path).map(|()| checksum));
    if written.is_err() {
        // The error that is reported says more than one of this.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn create(path: &Path, cache: Cache) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    if cache == Cache::Past {
        options.custom_flags(OFlag::O_DIRECT.bits());
    }
    for _ in 1..ATTEMPTS {
        match (options.open(path), path.parent()) {
            (Err(error), Some(folder)) if error.kind() == ErrorKind::NotFound => std::fs::create_dir_all(folder)?,
            (result, _) => return result,
        }
    }
    options.open(path)
}

fn fill(mut file: File, bytes: &[u8], cache: Cache) -> io::Result<u64> {
    let mut hasher = Xxh3Default::new();
    let mut memory = vec![0u8; CHUNK + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    for chunk in bytes.chunks(CHUNK) {
        // Both while it is in the processor's cache.
        hasher.update(chunk);
        memory[start..start + chunk.len()].copy_from_slice(chunk);
        let length = match cache {
            Cache::Past => chunk.len().next_multiple_of(ALIGNMENT),
            Cache::Through => chunk.len(),
        };
        // What the last piece is filled up with is cut off again.
        file.write_all(&memory[start..start + length])?;
    }
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    Ok(hasher.digest())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn files_hold_their_bytes_whatever_the_length_and_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * CHUNK + 2).map(|at| (at % 251) as u8).collect();
        let lengths = [0, 1, ALIGNMENT - 1, ALIGNMENT, ALIGNMENT + 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1];
        for (number, length) in lengths.into_iter().enumerate() {
            for (way, cache) in [("past", Cache::Past), ("through", Cache::Through)] {
                // From an odd address, and into a folder that is not there.
                let expected = &bytes[1..length + 1];
                let path = directory.path().join(format!("{way}-{number}/file"));
                match attempt(&path, expected, cache) {
                    // Not every file system can.
                    Err(error) if cache == Cache::Past && error.kind() == ErrorKind::InvalidInput => continue,
                    checksum => assert_eq!(checksum.unwrap(), xxh3_64(expected)),
                }
                assert!(std::fs::read(&path).unwrap() == expected, "{length} bytes {way} the cache");
            }
            let path = directory.path().join(format!("either/{number}"));
            assert_eq!(write_new(&path, &bytes[..length]).unwrap(), xxh3_64(&bytes[..length]));
            assert!(std::fs::read(&path).unwrap() == bytes[..length]);
        }
    }

    #[test]
    fn a_file_that_exists_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_new(&path, b"first").unwrap();
        assert_eq!(write_new(&path, b"second").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
    }
}
