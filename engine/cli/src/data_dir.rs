//! The directory of a job on this machine: identity, lock, checkpoints, logs. One run holds it at a time.
//!
//! ```text
//! lock          held by the running supervisor, with its process id
//! job-id        names the job in checkpoint storage; another one means another state
//! job.yaml      the job file of the last run, as its processes read it
//! run.json      processes and addresses of the running job
//! checkpoints/  checkpoint storage, unless the job file names another
//! logs/         one file a process
//! ```

use crate::error::CliError;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

const ADVICE: &str = "choose a directory that this user may write with --data-dir";

pub struct DataDir {
    path: PathBuf,
    lock: Option<File>,
    /// Topmost directory that did not exist before; removed again unless the run really starts.
    created: Option<PathBuf>,
}

impl DataDir {
    /// Creates the directory if it is not there.
    pub fn open(path: &Path) -> Result<DataDir, CliError> {
        let created =
            path.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists()).last();
        let directory = DataDir { path: path.to_owned(), lock: None, created: created.map(Path::to_owned) };
        fs::create_dir_all(path).map_err(|error| directory.failed("cannot create it", &error))?;
        Ok(directory)
    }

    /// # Errors
    /// [`CliError::InUse`] when another run holds it.
    pub fn lock(&mut self) -> Result<(), CliError> {
        let path = self.path.join("lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| self.failed("cannot open the lock", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is only for the message.
                let _ = file.read_to_string(&mut holder);
                return Err(CliError::InUse { path: self.path.clone(), holder: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(self.failed("cannot lock it", &error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .and_then(|()| file.flush());
        written.map_err(|error| self.failed("cannot write the lock", &error))?;
        self.lock = Some(file);
        Ok(())
    }

    /// A run that took over locks the directory as soon as the run before has let go.
    pub fn lock_if_free(&mut self) {
        if self.lock.is_none() {
            // In use for as long as the other run lives; this is tried again.
            let _ = self.lock();
        }
    }

    /// The job that earlier runs ran.
    pub fn job_id(&self) -> Result<Option<String>, CliError> {
        match fs::read_to_string(self.path.join("job-id")) {
            Ok(text) if is_job_id(text.trim()) => Ok(Some(text.trim().to_owned())),
            Ok(text) => Err(CliError::DataDir {
                path: self.path.clone(),
                action: "its file job-id is damaged",
                reason: format!("found {:?}, expected 32 hexadecimal digits", text.trim()),
                advice: "write the name of the job's directory of checkpoints into it, or start anew with --fresh",
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("cannot read job-id", &error)),
        }
    }

    /// From here on this is the job's directory, whatever happens.
    pub fn begin(&mut self, job_id: &str, job_file: &str) -> Result<(), CliError> {
        self.replace("job.yaml", job_file)?;
        self.replace("job-id", &format!("{job_id}\n"))?;
        self.created = None;
        Ok(())
    }

    /// Readers see the old content or the new one.
    pub fn replace(&self, name: &str, content: &str) -> Result<(), CliError> {
        let new = self.path.join(format!(".{name}.{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.path.join(name))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| {
            // Nothing else is known to be wrong with a leftover of this name.
            let _ = fs::remove_file(&new);
            self.failed("cannot write into it", &error)
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn checkpoints(path: &Path) -> PathBuf {
        path.join("checkpoints")
    }

    pub fn job_file(&self) -> PathBuf {
        self.path.join("job.yaml")
    }

    pub fn run_file(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// Where this run's processes log; a run that took over does not write into the files of the one before.
    pub fn logs(&self) -> Result<PathBuf, CliError> {
        let mut path = self.path.join("logs");
        if self.lock.is_none() {
            path.push(format!("run-{}", std::process::id()));
        }
        fs::create_dir_all(&path).map_err(|error| self.failed("cannot create logs", &error))?;
        Ok(path)
    }

    fn failed(&self, action: &'static str, error: &std::io::Error) -> CliError {
        CliError::DataDir { path: self.path.clone(), action, reason: error.to_string(), advice: ADVICE }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Some(created) = &self.created {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(created);
        }
    }
}

pub fn is_job_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_directory_that_no_run_began_in_is_removed_with_its_new_parents() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/deeper/job");
        let mut directory = DataDir::open(&path).unwrap();
        directory.lock().unwrap();
        drop(directory);
        assert!(!place.path().join("new").exists());
        assert!(place.path().exists());
    }

    #[test]
    fn a_directory_that_a_run_began_in_stays_and_knows_its_job() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("job");
        let mut directory = DataDir::open(&path).unwrap();
        assert_eq!(directory.job_id().unwrap(), None);
        directory.begin(ID, "text").unwrap();
        drop(directory);
        let directory = DataDir::open(&path).unwrap();
        assert_eq!(directory.job_id().unwrap().as_deref(), Some(ID));
        drop(directory);
        assert_eq!(fs::read_to_string(path.join("job.yaml")).unwrap(), "text");
    }

    #[test]
    fn the_second_run_is_refused_with_the_holder() {
        let place = tempfile::tempdir().unwrap();
        let mut first = DataDir::open(place.path()).unwrap();
        first.lock().unwrap();
        let mut second = DataDir::open(place.path()).unwrap();
        let error = second.lock().unwrap_err();
        let expected = format!("in use by another run (process {})", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        drop(first);
        second.lock_if_free();
        assert!(second.lock.is_some());
    }

    #[test]
    fn a_damaged_identity_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("job-id"), "abc").unwrap();
        let error = DataDir::open(place.path()).unwrap().job_id().unwrap_err();
        assert!(error.to_string().contains("job-id is damaged"), "{error}");
    }
}
