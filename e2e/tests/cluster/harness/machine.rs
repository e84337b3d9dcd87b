//! Processes of pods as the machine sees them, when the cluster's nodes are on this one.

use super::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

/// Process ids of a pod's engine or operator.
pub async fn processes(job: &Job<'_>, pod: &str) -> Vec<i32> {
    let pods: Api<Pod> = job.story.api();
    let uid = pods.get(pod).await.expect("the pod").metadata.uid.expect("its id");
    of_pod(&uid)
}

/// Process ids below the control group of a pod, without the one that only holds it.
pub fn of_pod(uid: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if read("cgroup").contains(&format!("pod{uid}")) && read("cmdline").contains("streamjob-") {
            found.push(id);
        }
    }
    found
}

pub fn kill(processes: &[i32]) {
    assert!(!processes.is_empty(), "no process of the pod is on this machine");
    for process in processes {
        let status = std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "killing process {process}");
    }
}

pub async fn kill_process(job: &Job<'_>, pod: &str) {
    kill(&processes(job, pod).await);
}
