//! New files on a file system, written piece by piece; large ones past the page cache.
//!
//! Whoever writes them waits until they are on the disk anyway. Through the page cache every byte would be copied into memory
//! that nobody reads again, and fetching that memory costs more than all other work on the file. What a file is for, and when
//! it may be deleted, is decided elsewhere.

use super::Written;
use crate::faults;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3Default;

/// Memory, places in the file and lengths of direct writes are multiples of this; no disk asks for more.
const ALIGNMENT: usize = 4096;
/// What one write takes: a few of them a second, none so long that it holds up other work of the disk. Smaller files go
/// through the page cache.
const CHUNK: usize = 4 << 20;
/// In the names of files that have no name of their own yet.
pub(super) const UNFINISHED: &str = ".unfinished-";
/// Folders disappear with their last file, also right after they were made for the next one.
const ATTEMPTS: usize = 16;

/// Writes a file that does not exist yet with what `fill` gives, and syncs it and its folder. Nothing is left of it after
/// an error.
pub(super) fn write_new(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), String>,
) -> Result<Written, String> {
    let mut file = NewFile::create(path).map_err(|error| error.to_string())?;
    fill(&mut file)?;
    file.finish().map_err(|error| error.to_string())
}

/// Writes a file under a name for which several writers may race: one of them gets it, the others `AlreadyExists`. The name
/// is there only once its content is on the disk, so that whoever finds it finds all of it, after a crash of the machine too.
/// Of a writer that was killed, a file with [`UNFINISHED`] in its name may be left.
pub(super) fn create_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!("{UNFINISHED}{}", uuid::Uuid::new_v4().simple()));
    let unfinished = PathBuf::from(unfinished);
    let named = create(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        faults::point("name.before").map_err(io::Error::other)?;
        std::fs::hard_link(&unfinished, path)
    });
    // The name stands or falls without it.
    let _ = std::fs::remove_file(&unfinished);
    named?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Goes with its file unless it is finished.
struct NewFile {
    path: PathBuf,
    file: File,
    /// Aligned from `start` on, where what is not written yet stands. Never moves.
    memory: Vec<u8>,
    start: usize,
    hasher: Xxh3Default,
    length: u64,
    /// Writes go past the page cache.
    direct: bool,
    finished: bool,
}

impl NewFile {
    fn create(path: &Path) -> io::Result<NewFile> {
        let file = create(path)?;
        let mut memory: Vec<u8> = Vec::with_capacity(CHUNK + ALIGNMENT);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        memory.resize(start, 0);
        Ok(NewFile {
            path: path.to_owned(),
            file,
            memory,
            start,
            hasher: Xxh3Default::new(),
            length: 0,
            direct: false,
            finished: false,
        })
    }

    fn finish(mut self) -> io::Result<Written> {
        if self.waiting() > 0 {
            self.flush_memory()?;
        }
        // What the last piece was filled up with is cut off again.
        self.file.set_len(self.length)?;
        self.file.sync_all()?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.finished = true;
        Ok(Written { bytes: self.length, checksum: self.hasher.digest() })
    }

    /// Bytes that are not written yet.
    fn waiting(&self) -> usize {
        self.memory.len() - self.start
    }

    fn flush_memory(&mut self) -> io::Result<()> {
        let length = self.waiting();
        if self.length == 0 && length == CHUNK {
            // Not every file system can; what it says about it does not matter.
            self.direct = set_direct(&self.file, true).is_ok();
        }
        // Hashed and copied while it is in the processor's cache.
        self.hasher.update(&self.memory[self.start..]);
        if self.direct {
            self.memory.resize(self.start + length.next_multiple_of(ALIGNMENT), 0);
        }
        match self.file.write_all_at(&self.memory[self.start..], self.length) {
            // Some say so only now.
            Err(error) if self.direct && error.kind() == ErrorKind::InvalidInput => {
                set_direct(&self.file, false)?;
                self.direct = false;
                self.file.write_all_at(&self.memory[self.start..], self.length)?;
            }
            result => result?,
        }
        self.length += length as u64;
        self.memory.truncate(self.start);
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.waiting());
        self.memory.extend_from_slice(&bytes[..taken]);
        if self.waiting() == CHUNK {
            self.flush_memory()?;
        }
        Ok(taken)
    }

    /// Only whole pieces can be written; the rest is written at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // The error that is reported says more than one of this.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    for _ in 1..ATTEMPTS {
        match (options.open(path), path.parent()) {
            (Err(error), Some(folder)) if error.kind() == ErrorKind::NotFound => std::fs::create_dir_all(folder)?,
            (result, _) => return result,
        }
    }
    options.open(path)
}

fn set_direct(file: &File, direct: bool) -> nix::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_DIRECT, direct);
    fcntl(file, FcntlArg::F_SETFL(flags)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn write(path: &Path, pieces: &[&[u8]]) -> Result<Written, String> {
        write_new(path, |out| {
            pieces.iter().try_for_each(|piece| out.write_all(piece)).map_err(|error| error.to_string())
        })
    }

    #[test]
    fn files_hold_their_bytes_whatever_their_length_and_their_pieces() {
        let directory = tempfile::tempdir().unwrap();
        // Not every file system can write past the cache: a second one in memory cannot.
        let other = tempfile::tempdir_in("/dev/shm").unwrap();
        let bytes: Vec<u8> = (0..2 * CHUNK + 2).map(|at| (at % 251) as u8).collect();
        let lengths = [0, 1, ALIGNMENT - 1, ALIGNMENT, ALIGNMENT + 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1];
        for (number, length) in lengths.into_iter().enumerate() {
            // From an odd address.
            let expected = &bytes[1..length + 1];
            for piece in [999_983, CHUNK, 3 * CHUNK] {
                for place in [&directory, &other] {
                    // Into a folder that is not there.
                    let path = place.path().join(format!("{number}/{piece}/file"));
                    let pieces: Vec<&[u8]> = expected.chunks(piece).collect();
                    let written = write(&path, &pieces).unwrap();
                    assert_eq!(written, Written { bytes: length as u64, checksum: xxh3_64(expected) });
                    assert!(std::fs::read(&path).unwrap() == expected, "{length} bytes in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_exists_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, &[b"first"]).unwrap();
        assert!(write(&path, &[b"second"]).unwrap_err().contains("exists"));
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn of_several_that_want_a_name_one_gets_it_and_nothing_of_the_others_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("folder/name");
        let outcomes: Vec<io::Result<()>> = std::thread::scope(|scope| {
            let path = path.as_path();
            let writers: Vec<_> =
                (0..8u8).map(|writer| scope.spawn(move || create_whole(path, &[writer; 9]))).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let won: Vec<usize> = (0..8).filter(|&writer| outcomes[writer].is_ok()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        assert!(lost.into_iter().all(|error| error.kind() == ErrorKind::AlreadyExists), "{outcomes:?}");
        assert_eq!(std::fs::read(&path).unwrap(), [won[0] as u8; 9]);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_left_of_a_file_that_was_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let given_up = write_new(&directory.path().join("file"), |out| {
            out.write_all(&vec![1; CHUNK + 1]).map_err(|error| error.to_string())?;
            Err("enough".into())
        });
        assert_eq!(given_up, Err("enough".into()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
