//! Starting one container: image, configuration, create, start, postStart.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod, Secret};
use rk_api::{Api, EventRecorder};

use super::{
    env::{self, Sources},
    prober,
    spec::{self, Making, Member},
};
use crate::{
    fsutil,
    probe::{self, Target},
    runtime::{
        RuntimeError,
        types::{AuthConfig, PodSandboxConfig},
    },
    shared::{Shared, about_container},
};

/// Why a container did not start: the waiting state's reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

fn error(reason: &'static str) -> impl Fn(String) -> StartError {
    move |message| StartError { reason, message }
}

/// Everything that a start needs.
pub(crate) struct Start {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) member: Member,
    pub(crate) attempt: u32,
    pub(crate) sandbox_id: String,
    pub(crate) sandbox: PodSandboxConfig,
    pub(crate) pod_ips: Vec<String>,
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) target_id: String,
}

impl Start {
    fn recorder(&self) -> &EventRecorder {
        &self.shared.recorder
    }

    /// Starts the container; answers its id.
    pub(crate) async fn run(self) -> Result<String, StartError> {
        let about = about_container(&self.pod, &self.member);
        let image = self.image().await?;
        let config = self.container_config(image).inspect_err(|error| {
            self.recorder().warning(&about, "Failed", format!("Error: {}", error.message));
        })?;
        let runtime = &self.shared.config.runtime;
        let created = runtime.create_container(&self.sandbox_id, &config, &self.sandbox).await;
        let id = created.map_err(|failure| {
            let (reason, message) = match failure {
                RuntimeError::ImagePull(message) => ("ErrImagePull", message),
                other => ("CreateContainerError", other.to_string()),
            };
            self.recorder().warning(&about, "Failed", format!("Error: {message}"));
            StartError { reason, message }
        })?;
        self.recorder().normal(&about, "Created", "Container created");
        if let Err(failure) = runtime.start_container(&id).await {
            let message = failure.to_string();
            self.recorder().warning(&about, "Failed", format!("Error: {message}"));
            return Err(StartError { reason: "RunContainerError", message });
        }
        self.recorder().normal(&about, "Started", "Container started");
        if let Some(hook) = self.member.container.lifecycle.as_ref().and_then(|hooks| hooks.post_start.as_ref()) {
            let target = prober::target_of(runtime, &id, &self.member.container, &self.ip());
            if let Err(message) = run_hook(&target, hook, Duration::from_secs(3600)).await {
                self.recorder().warning(&about, "FailedPostStartHook", format!("PostStartHook failed: {message}"));
                // The restart policy decides what comes next.
                let stopped = runtime.stop_container(&id, Duration::from_secs(2)).await;
                stopped.map_err(|failure| error("PostStartHookError")(failure.to_string()))?;
                return Err(StartError { reason: "PostStartHookError", message });
            }
        }
        Ok(id)
    }

    fn ip(&self) -> String {
        self.pod_ips.first().cloned().unwrap_or_else(|| self.shared.config.address.to_string())
    }

    /// The reference of the container's image, pulled where the policy asks for it.
    async fn image(&self) -> Result<String, StartError> {
        let container = &self.member.container;
        let about = about_container(&self.pod, &self.member);
        let image = container.image.clone().unwrap_or_default();
        if image.is_empty() || image.chars().any(char::is_whitespace) {
            let message = format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image name: invalid reference format"
            );
            self.recorder().warning(&about, "InspectFailed", message.clone());
            return Err(StartError { reason: "InvalidImageName", message });
        }
        let latest = !image.contains('@')
            && image.rsplit('/').next().is_none_or(|last| !last.contains(':') || last.ends_with(":latest"));
        let default = if latest { "Always" } else { "IfNotPresent" };
        let policy = container.image_pull_policy.as_deref().unwrap_or(default);
        let images = &self.shared.config.images;
        let present = images.image_status(&image).await.map_err(|failure| {
            let message = failure.to_string();
            self.recorder().warning(&about, "InspectFailed", format!("Failed to inspect image \"{image}\": {message}"));
            StartError { reason: "ImageInspectError", message }
        })?;
        match (present, policy) {
            (Some(found), "IfNotPresent" | "Never") => {
                let message =
                    format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
                self.recorder().normal(&about, "Pulled", message);
                return Ok(found.id);
            }
            (None, "Never") => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                self.recorder().warning(&about, "ErrImageNeverPull", message.clone());
                return Err(StartError { reason: "ErrImageNeverPull", message });
            }
            _ => {}
        }
        self.recorder().normal(&about, "Pulling", format!("Pulling image \"{image}\""));
        let begun = tokio::time::Instant::now();
        let mut pulled = images.pull_image(&image, None).await;
        if pulled.is_err() {
            for auth in self.credentials(&image).await {
                pulled = images.pull_image(&image, Some(&auth)).await;
                if pulled.is_ok() {
                    break;
                }
            }
        }
        match pulled {
            Ok(reference) => {
                let took = begun.elapsed().as_millis();
                self.recorder().normal(&about, "Pulled", format!("Successfully pulled image \"{image}\" in {took}ms"));
                Ok(reference)
            }
            Err(failure) => {
                let message = format!("Failed to pull image \"{image}\": {failure}");
                self.recorder().warning(&about, "Failed", message);
                self.recorder().warning(&about, "Failed", "Error: ErrImagePull");
                Err(StartError { reason: "ErrImagePull", message: failure.to_string() })
            }
        }
    }

    /// What the pod's pull secrets hold for the image's registry.
    async fn credentials(&self, image: &str) -> Vec<AuthConfig> {
        let registry = image.split_once('/').map_or("docker.io", |(registry, _)| registry);
        let secrets = Api::<Secret>::namespaced(Arc::clone(&self.shared.client), spec::namespace(&self.pod));
        let mut found = Vec::new();
        for reference in spec::spec(&self.pod).image_pull_secrets.iter().flatten() {
            let secret = match secrets.get(&reference.name).await {
                Ok(secret) => secret,
                Err(failure) => {
                    let message = format!("Unable to retrieve some image pull secrets ({}): {failure}", reference.name);
                    let about = about_container(&self.pod, &self.member);
                    self.recorder().warning(&about, "FailedToRetrieveImagePullSecret", message);
                    continue;
                }
            };
            let config = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
            let config = config.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes.0).ok());
            for (server, entry) in config.as_ref().and_then(|config| config["auths"].as_object()).into_iter().flatten()
            {
                if server.contains(registry) {
                    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                    found.push(AuthConfig {
                        username: text("username"),
                        password: text("password"),
                        auth: text("auth"),
                        server_address: server.clone(),
                    });
                }
            }
        }
        found
    }

    fn container_config(&self, image: String) -> Result<crate::runtime::types::ContainerConfig, StartError> {
        let config_error = error("CreateContainerConfigError");
        let shared = &self.shared;
        let (pod, container) = (&*self.pod, &self.member.container);
        let mut ips = self.pod_ips.clone();
        if ips.is_empty() {
            ips.push(shared.config.address.to_string());
        }
        let place = shared.place(ips);
        let services = shared.services(spec::namespace(pod));
        let api_server = shared.config.api_server.as_ref();
        let envs = env::make(pod, container, &place, &self.sources, &services, api_server).map_err(&config_error)?;
        if let Some(context) = self.not_root() {
            return Err(config_error(context));
        }
        let log = spec::termination_log(&shared.config, pod, &container.name, self.attempt);
        let made = (|| {
            if let Some(folder) = log.parent() {
                std::fs::create_dir_all(folder)?;
            }
            fsutil::replace(&log, b"", 0o666)?;
            self.hosts_file()
        })();
        let hosts_file = made.map_err(|failure| config_error(failure.to_string()))?;
        let making = Making {
            config: &shared.config,
            pod,
            member: &self.member,
            attempt: self.attempt,
            image,
            envs,
            volumes: &self.volumes,
            hosts_file,
            memory_capacity: shared.memory(),
            target_id: self.target_id.clone(),
        };
        making.config().map_err(config_error)
    }

    /// `runAsNonRoot` without a user to run as, or with root.
    fn not_root(&self) -> Option<String> {
        let of_pod = spec::spec(&self.pod).security_context.clone().unwrap_or_default();
        let own = self.member.container.security_context.clone().unwrap_or_default();
        let wanted = own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true);
        let user = own.run_as_user.or(of_pod.run_as_user);
        (wanted && user == Some(0)).then(|| {
            format!(
                "container's runAsUser breaks non-root policy (pod: \"{}_{}({})\", container: {})",
                spec::name(&self.pod),
                spec::namespace(&self.pod),
                spec::uid(&self.pod),
                self.member.container.name
            )
        })
    }

    /// The pod's `/etc/hosts`; none with the host's network.
    fn hosts_file(&self) -> std::io::Result<Option<PathBuf>> {
        let of = spec::spec(&self.pod);
        if of.host_network == Some(true) && of.host_aliases.is_none() {
            return Ok(None);
        }
        let mut text = String::from("# Kubernetes-managed hosts file.\n");
        if of.host_network == Some(true) {
            text = std::fs::read_to_string("/etc/hosts")?;
        } else {
            text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
            let name = spec::hostname(&self.pod);
            for ip in &self.pod_ips {
                text.push_str(&match of.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
                    Some(subdomain) => {
                        let domain = &self.shared.config.cluster_domain;
                        let namespace = spec::namespace(&self.pod);
                        format!("{ip}\t{name}.{subdomain}.{namespace}.svc.{domain}\t{name}\n")
                    }
                    None => format!("{ip}\t{name}\n"),
                });
            }
        }
        let aliases = of.host_aliases.as_deref().unwrap_or_default();
        if !aliases.is_empty() {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
        let path = spec::pod_folder(&self.shared.config, spec::uid(&self.pod)).join("etc-hosts");
        fsutil::replace(&path, text.as_bytes(), 0o644)?;
        Ok(Some(path))
    }
}

/// Runs a lifecycle hook to its end.
pub(crate) async fn run_hook(target: &Target, hook: &LifecycleHandler, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = target.runtime.exec_sync(&target.container_id, &command, timeout).await;
        return match answer {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(format!(
                "command '{}' exited with {}: {}",
                command.join(" "),
                answer.exit_code,
                String::from_utf8_lossy(&answer.stderr)
            )),
            Err(failure) => Err(failure.to_string()),
        };
    }
    if let Some(get) = &hook.http_get {
        return probe::http_get(target, get, timeout).await;
    }
    if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(timeout)).await;
        return Ok(());
    }
    // A TCP hook is accepted for compatibility and does nothing, as in the kubelet.
    Ok(())
}
