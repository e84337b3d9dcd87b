//! A MinIO server on loopback, built once by `e2e/parts/minio.sh`.

use crate::harness::{Job, Launch, Reserved, eventually, http_get, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

pub const BUCKET: &str = "checkpoints";
const USER: &str = "streamjob";
const PASSWORD: &str = "streamjob-test";

pub struct Minio {
    address: Reserved,
    data: TempDir,
    child: Option<Child>,
}

impl Minio {
    /// Starts a server with one empty bucket and waits until it serves.
    pub fn start() -> Minio {
        let address = Reserved::new();
        let data = TempDir::with_prefix("streamjob-minio-").expect("a temporary directory");
        // A directory below the root of a server with a single drive is a bucket.
        fs::create_dir_all(data.path().join("drive").join(BUCKET)).expect("creating the bucket");
        let mut minio = Minio { address, data, child: None };
        minio.resume();
        minio
    }

    /// SIGKILL, in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killing MinIO");
            child.wait().expect("waiting for MinIO");
        }
    }

    /// Leaves requests hanging until `thaw`.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("running").id();
        kill(Pid::from_raw(pid as i32), signal).expect("signalling MinIO");
    }

    /// Starts it again on the same data and port.
    pub fn resume(&mut self) {
        let log = File::options().create(true).append(true).open(self.data.path().join("log")).expect("a log file");
        let child = Command::new(binary())
            .args(["server", "--quiet", "--address", &self.address.address])
            .arg(self.data.path().join("drive"))
            .env("MINIO_ROOT_USER", USER)
            .env("MINIO_ROOT_PASSWORD", PASSWORD)
            .env("MINIO_BROWSER", "off")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log)
            .spawn()
            .expect("starting MinIO");
        self.child = Some(child);
        let ready = || http_get(&self.address.address, "/minio/health/ready");
        eventually("MinIO to be ready", Duration::from_secs(60), ready);
    }

    /// The job with its checkpoints on this server.
    pub fn storage(&self, job: Job) -> Job {
        job.spec(
            "storage",
            &format!(
                "\n    s3: {{ bucket: {BUCKET}, prefix: jobs, endpoint: \"http://{}\", region: us-east-1 }}",
                self.address.address
            ),
        )
    }

    /// The run with this server's credentials.
    pub fn credentials(&self, launch: Launch) -> Launch {
        self.secrets().into_iter().fold(launch, |launch, (name, value)| launch.environment(name, value))
    }

    /// What a process needs in its environment.
    pub fn secrets(&self) -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", USER), ("AWS_SECRET_ACCESS_KEY", PASSWORD)]
    }

    /// Where the server keeps the objects of the bucket: each is a directory of its name.
    pub fn objects(&self) -> PathBuf {
        self.data.path().join("drive").join(BUCKET)
    }

    /// Names of the objects, as directories of MinIO's drive show them.
    pub fn object_names(&self) -> Vec<String> {
        let root = self.objects();
        let mut names: Vec<String> = crate::harness::files_below(&root)
            .iter()
            .filter(|file| file.file_name().is_some_and(|name| name == "xl.meta"))
            .filter_map(|file| file.parent()?.strip_prefix(&root).ok()?.to_str().map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    /// Files of multipart uploads that were neither completed nor given up.
    pub fn unfinished_uploads(&self) -> Vec<PathBuf> {
        let uploads = self.data.path().join("drive/.minio.sys/multipart");
        assert!(uploads.is_dir(), "MinIO keeps them somewhere else: {}", uploads.display());
        crate::harness::files_below(&uploads)
    }

    /// The highest checkpoint whose manifest is stored.
    pub fn latest_checkpoint(&self) -> u64 {
        self.object_names()
            .iter()
            .filter_map(|name| {
                let manifest = Path::new(name.strip_suffix("/_metadata")?);
                manifest.file_name()?.to_str()?.strip_prefix("chk-")?.parse().ok()
            })
            .max()
            .unwrap_or(0)
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Builds the server unless it is there; minutes the first time.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let output = Command::new(tree().join("e2e/parts/minio.sh")).output().expect("running e2e/parts/minio.sh");
        assert!(output.status.success(), "building MinIO: {}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}
