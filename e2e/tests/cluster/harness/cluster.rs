//! The cluster that KUBECONFIG names, what is installed in it, and the failures that only its machine can make.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;
use tokio::sync::OnceCell;

pub const OPERATOR_NAMESPACE: &str = "streamjob-system";
const RELEASE: &str = "streamjob";

/// Once a process: stories run side by side.
static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// Root of the source tree.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the source tree")
}

/// The image that jobs run with. `STREAMJOB_E2E_REGISTRY` replaces `docker.io/streamjob` on another cluster.
pub fn engine_image(tag: &str) -> String {
    format!("{}/engine:{tag}", registry())
}

fn registry() -> String {
    std::env::var("STREAMJOB_E2E_REGISTRY").unwrap_or_else(|_| "docker.io/streamjob".into())
}

/// Runs a program to its end; its output, or what it said instead.
pub async fn command(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
}

impl Cluster {
    /// Connects, and installs operator and object store if this process has not done so yet.
    pub async fn connect() -> Cluster {
        assert!(
            std::env::var_os("KUBECONFIG").is_some(),
            "KUBECONFIG is not set: these tests need a cluster; `make e2e` starts one and runs them in it"
        );
        let client = Client::try_default().await.expect("a client for the cluster of KUBECONFIG");
        let cluster = Cluster { client };
        INSTALLED.get_or_init(|| cluster.install()).await;
        cluster
    }

    async fn install(&self) {
        self.helm(&[]).await;
        let manifest = tree().join("e2e/cluster/minio.yaml");
        command("kubectl", &["apply", "-f", &manifest.display().to_string()])
            .await
            .expect("installing the object store");
        command("kubectl", &["rollout", "status", "-n", "minio", "deployment/minio", "--timeout=120s"])
            .await
            .expect("the object store comes up");
    }

    /// Installs the chart, or changes what it was installed with.
    pub async fn helm(&self, values: &[&str]) {
        let chart = tree().join("charts/streamjob-operator").display().to_string();
        let operator = format!("image.repository={}/operator", registry());
        let engine = format!("engine.image.repository={}/engine", registry());
        let namespace = tree().join("e2e/operator-namespace.yaml").display().to_string();
        command("kubectl", &["apply", "-f", &namespace]).await.expect("the operator's namespace");
        let mut arguments = vec!["upgrade", "--install", RELEASE, &chart, "--namespace", OPERATOR_NAMESPACE];
        for value in [operator.as_str(), engine.as_str(), "image.tag=dev", "engine.image.tag=dev"].iter().chain(values)
        {
            arguments.extend(["--set", value]);
        }
        arguments.extend(["--wait", "--timeout", "120s"]);
        command("helm", &arguments).await.expect("helm installs the operator");
    }

    /// Waits until all replicas of the operator are up.
    pub async fn operator_is_up(&self) {
        let target = format!("--selector=app.kubernetes.io/instance={RELEASE}");
        let arguments = ["rollout", "status", "-n", OPERATOR_NAMESPACE, "deployment", &target, "--timeout=120s"];
        command("kubectl", &arguments).await.expect("the operator comes up");
    }

    /// Pods of the operator that are not on their way out.
    pub async fn operators(&self) -> Vec<String> {
        self.operator_pods().await.into_iter().filter_map(|pod| pod.metadata.name).collect()
    }

    async fn operator_pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let found = pods.list(&ListParams::default()).await.expect("listing the operator's pods").items;
        found.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Starts the operator anew on another node than this one, which takes no pods at the moment.
    pub async fn operator_leaves(&self, node: &str) {
        for pod in self.operators().await {
            self.kill_operator(&pod).await;
        }
        super::eventually("the operator is ready on another node", super::PATIENCE, || async {
            let pods = self.operator_pods().await;
            let ready = |pod: &Pod| {
                let status = pod.status.as_ref();
                let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
                let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
                let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                ready && on.is_some_and(|on| on != node)
            };
            if !pods.is_empty() && pods.iter().all(ready) { Ok(()) } else { Err(format!("{} pods", pods.len())) }
        })
        .await;
    }

    /// Deletes a pod of the operator without waiting for its node, as when it dies. False when it is not there any more.
    pub async fn kill_operator(&self, pod: &str) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        match pods.delete(pod, &DeleteParams::default().grace_period(0)).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 404 => false,
            Err(error) => panic!("killing {pod}: {error}"),
        }
    }

    /// Ends the object store, or starts it again (empty).
    pub async fn object_store(&self, runs: bool) {
        let replicas = format!("--replicas={}", u8::from(runs));
        command("kubectl", &["scale", "-n", "minio", "deployment/minio", &replicas]).await.expect("kubectl scale");
        let arguments: &[&str] = if runs {
            &["rollout", "status", "-n", "minio", "deployment/minio", "--timeout=120s"]
        } else {
            &["wait", "-n", "minio", "--for=delete", "pods", "--all", "--timeout=120s"]
        };
        command("kubectl", arguments).await.expect("the object store comes and goes");
    }

    pub async fn nodes_are_ready(&self) {
        command("kubectl", &["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"])
            .await
            .expect("all nodes are ready");
    }

    /// Runs a script of e2e/cluster on the machine's own cluster. Stories that need one are in module `machine`; run
    /// the others with `--skip machine` on a cluster that is somewhere else.
    pub async fn machine(&self, script: &str, arguments: &[&str]) -> String {
        let name = std::env::var("STREAMJOB_CLUSTER").expect(
            "STREAMJOB_CLUSTER is not set: this story breaks a cluster of e2e/cluster/up.sh; run it by `make e2e`",
        );
        let script = tree().join("e2e/cluster").join(script).display().to_string();
        let all: Vec<&str> = ["--name", &name].into_iter().chain(arguments.iter().copied()).collect();
        command(&script, &all).await.expect("a script of the cluster")
    }
}
