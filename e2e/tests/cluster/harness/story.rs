//! A story's own namespace, with what its jobs need; kept for a look, and written down, when the story fails.

use super::{Cluster, Job, Manifest, Storage, command, tree};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Stories run side by side, except those that break what they share.
static SHARED: RwLock<()> = RwLock::const_new(());

/// Held to the end of a story.
enum Guard {
    Beside {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
    /// Another story's.
    Borrowed,
}

pub struct Story {
    pub cluster: Cluster,
    pub namespace: String,
    pub storage: Storage,
    _guard: Guard,
}

impl Story {
    /// Begins a story that runs beside others.
    pub async fn begin(name: &str, storage: Storage) -> Story {
        Story::start(name, storage, Guard::Beside { _guard: SHARED.read().await }).await
    }

    /// Begins one that runs alone, because it breaks the cluster or the operator.
    pub async fn alone(name: &str, storage: Storage) -> Story {
        Story::start(name, storage, Guard::Alone { _guard: SHARED.write().await }).await
    }

    /// Another namespace of the same story.
    pub async fn beside(story: &Story, name: &str) -> Story {
        Story::start(name, story.storage, Guard::Borrowed).await
    }

    async fn start(name: &str, storage: Storage, guard: Guard) -> Story {
        let cluster = Cluster::connect().await;
        let kind = match storage {
            Storage::Claim => "pvc",
            Storage::S3 => "s3",
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let namespace = format!("e2e-{name}-{kind}-{:05x}", since.as_millis() & 0xf_ffff);
        let story = Story { cluster, namespace, storage, _guard: guard };
        story.prepare().await;
        story
    }

    async fn prepare(&self) {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "streamjob.dev/e2e": "true"});
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        create(&namespaces, json!({"metadata": {"name": self.namespace, "labels": labels}})).await;
        self.claim("out").await;
        let secrets: Api<Secret> = self.api();
        create(
            &secrets,
            json!({"metadata": {"name": "s3-credentials"}, "stringData": {
                "AWS_ACCESS_KEY_ID": "streamjob", "AWS_SECRET_ACCESS_KEY": "streamjob-secret"}}),
        )
        .await;
        // The account that pods get by default is made a moment after its namespace.
        super::eventually("the tools pod is accepted", super::PATIENCE, || async {
            self.create_tools("tools", "out").await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// A claim that pods of both nodes can write to.
    pub async fn claim(&self, name: &str) {
        let spec = json!({"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}});
        let claims: Api<PersistentVolumeClaim> = self.api();
        create(&claims, json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// A pod with a shell that mounts a claim of the namespace at /data.
    pub async fn create_tools(&self, name: &str, claim: &str) -> Result<(), kube::Error> {
        let image = super::engine_image("dev").replace("/engine:", "/busybox:");
        let pod = json!({"metadata": {"name": name}, "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "tools", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sleep", "100000"],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        }});
        let pods: Api<Pod> = self.api();
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        pods.create(&PostParams::default(), &pod).await.map(|_| ())
    }

    /// Runs a command in a pod that [`Story::create_tools`] made, once it runs.
    pub async fn exec(&self, pod: &str, script: &str) -> Result<String, String> {
        let wait = ["wait", "-n", &self.namespace, "--for=condition=Ready", "--timeout=60s", &format!("pod/{pod}")];
        command("kubectl", &wait).await?;
        command("kubectl", &["exec", "-n", &self.namespace, pod, "--", "/bin/sh", "-c", script]).await
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// StreamJobs or Savepoints, as a user sees them.
    pub fn resources(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "streamjob.dev".into(),
            version: "v1alpha1".into(),
            api_version: "streamjob.dev/v1alpha1".into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::namespaced_with(self.cluster.client.clone(), &self.namespace, &resource)
    }

    pub fn jobs(&self) -> Api<DynamicObject> {
        self.resources("StreamJob", "streamjobs")
    }

    pub fn savepoints(&self) -> Api<DynamicObject> {
        self.resources("Savepoint", "savepoints")
    }

    /// The counting job on this story's storage.
    pub fn counting(&self, name: &str) -> Manifest {
        Manifest::counting(name, self.storage)
    }

    /// Applies a job as `kubectl apply --server-side` does.
    pub async fn apply(&self, manifest: &Manifest) -> Job<'_> {
        let parameters = PatchParams::apply("e2e").force();
        self.jobs()
            .patch(manifest.name(), &parameters, &Patch::Apply(&manifest.value))
            .await
            .unwrap_or_else(|error| panic!("applying {}: {error}", manifest.name()));
        Job::of(self, manifest.name())
    }

    /// Creates a Savepoint resource.
    pub async fn savepoint(&self, name: &str, spec: Value) {
        let value = json!({"apiVersion": "streamjob.dev/v1alpha1", "kind": "Savepoint",
            "metadata": {"name": name}, "spec": spec});
        let object: DynamicObject = serde_json::from_value(value).expect("a savepoint");
        self.savepoints().create(&PostParams::default(), &object).await.expect("creating the savepoint");
    }

    /// The savepoint's status once it is in this phase.
    pub async fn savepoint_in(&self, name: &str, phase: &str) -> Value {
        super::eventually(&format!("savepoint {name} in phase {phase}"), super::PATIENCE, || async {
            let object = self.savepoints().get(name).await.map_err(|error| error.to_string())?;
            let status = &object.data["status"];
            if status["phase"] == phase { Ok(status.clone()) } else { Err(status.to_string()) }
        })
        .await
    }

    /// Deletes a resource and waits until it is gone.
    pub async fn delete(&self, api: &Api<DynamicObject>, name: &str) {
        api.delete(name, &DeleteParams::background()).await.expect("deleting");
        self.gone(api, name).await;
    }

    /// Waits until a resource is gone.
    pub async fn gone(&self, api: &Api<DynamicObject>, name: &str) {
        super::eventually(&format!("{name} is gone"), super::PATIENCE, || async {
            match api.get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(object)) => Err(format!("{} {}", json!(object.metadata), object.data["status"])),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Names below a directory of the claim that the job's state lies on, or below a prefix of the bucket: files of state alone.
    pub async fn stored(&self, job: &str) -> Vec<String> {
        let listed = match self.storage {
            Storage::Claim => {
                let claim = format!("{job}-state");
                let pod = format!("look-{claim}");
                let pods: Api<Pod> = self.api();
                if pods.get_opt(&pod).await.expect("looking for the pod").is_none() {
                    self.create_tools(&pod, &claim).await.expect("a pod that looks at the state");
                }
                self.exec(&pod, &format!("cd /data && find . -type f -path './{}.{job}/*'", self.namespace)).await
            }
            Storage::S3 => {
                // The store keeps each object as a directory that ends with its name.
                let script = format!(
                    "cd /data/streamjob/e2e/{}.{job} 2>/dev/null && find . -name xl.meta | sed 's,/xl.meta$,,' || true",
                    self.namespace
                );
                command("kubectl", &["exec", "-n", "minio", "deployment/minio", "--", "/bin/sh", "-c", &script]).await
            }
        };
        let mut names: Vec<String> = listed.expect("listing stored files").lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The story went well: nothing of it stays.
    pub async fn end(self) {
        let jobs = self.jobs();
        for job in jobs.list(&Default::default()).await.expect("listing jobs").items {
            let name = job.metadata.name.unwrap_or_default();
            jobs.delete(&name, &DeleteParams::background()).await.map(|_| ()).unwrap_or(());
        }
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::background()).await.expect("deleting the namespace");
    }
}

async fn create<K>(api: &Api<K>, value: Value)
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(value).expect("an object of that kind");
    api.create(&PostParams::default(), &object).await.expect("creating an object");
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let script = tree().join("e2e/diagnostics.sh");
            match std::process::Command::new(&script).arg(&self.namespace).output() {
                Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stdout).trim()),
                Err(error) => eprintln!("{}: {error}", script.display()),
            }
        }
    }
}
