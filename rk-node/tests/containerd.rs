//! The `cri` runtime against a real containerd, with an image made here of Debian's static busybox: no registry.
//!
//! It needs root, `containerd`, `runc`, `ctr` and `busybox`; without them it is skipped, unless `CI` is `true`.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rk_node::{cri::CriRuntime, testing};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A tar file being written: ustar headers, no owners, no times.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(&mut self, name: &str, kind: u8, mode: u32, link: &str, content: &[u8]) {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}\0{:07o}\0{:07o}\0{:011o}\0{:011o}\0        ", 0, 0, content.len(), 0));
        put(157, link);
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().div_ceil(512) * 512, 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A docker archive of one layer: busybox under all the names that it answers to.
fn image(busybox: &Path) -> Vec<u8> {
    let mut layer = Tar::default();
    for folder in ["bin/", "etc/", "proc/", "sys/", "dev/", "tmp/"] {
        layer.entry(folder, b'5', 0o755, "", b"");
    }
    layer.entry("bin/busybox", b'0', 0o755, "", &std::fs::read(busybox).unwrap());
    for name in ["sh", "cat", "sleep", "echo", "ls", "stat", "true"] {
        layer.entry(&format!("bin/{name}"), b'2', 0o777, "busybox", b"");
    }
    layer.entry("etc/passwd", b'0', 0o644, "", b"root:x:0:0:root:/:/bin/sh\n");
    let layer = layer.end();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    });
    let config = config.to_string();
    let (config_name, layer_name) = (format!("{}.json", hex(config.as_bytes())), format!("{}.tar", hex(&layer)));
    let manifest = json!([{"Config": config_name, "Layers": [layer_name],
        "RepoTags": ["localhost/pause:local", "localhost/busybox:local"]}]);
    let mut archive = Tar::default();
    archive.entry(&config_name, b'0', 0o644, "", config.as_bytes());
    archive.entry(&layer_name, b'0', 0o644, "", &layer);
    archive.entry("manifest.json", b'0', 0o644, "", manifest.to_string().as_bytes());
    archive.end()
}

/// A containerd of its own, with all its state in one folder.
struct Containerd {
    process: Child,
    folder: tempfile::TempDir,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The suite has removed its pods; what a failed test left is ended here.
        let socket = self.socket();
        let listed = Command::new("ctr")
            .args(["-a", socket.to_str().unwrap(), "-n", "k8s.io", "tasks", "ls", "-q"])
            .output()
            .unwrap();
        for id in String::from_utf8_lossy(&listed.stdout).lines() {
            self.ctr(&["tasks", "rm", "-f", id]);
        }
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        self.process.wait().unwrap();
    }
}

impl Containerd {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    fn ctr(&self, args: &[&str]) -> bool {
        let socket = self.socket();
        let status = Command::new("ctr")
            .args(["-a", socket.to_str().unwrap(), "-n", "k8s.io"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.unwrap().success()
    }

    /// Starts it and gives it the image; `None` (with a line that says why) where it can't run.
    fn start() -> Option<Self> {
        let found = |name: &str| {
            let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.exists())
        };
        let root = std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let missing: Vec<&str> =
            ["containerd", "runc", "ctr", "busybox"].into_iter().filter(|name| found(name).is_none()).collect();
        if !root || !missing.is_empty() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "CI must have containerd: root {root}, missing {missing:?}"
            );
            println!("skipped: needs root ({root}) and {missing:?}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let config = format!(
            r#"version = 2
root = "{path}/root"
state = "{path}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{path}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{path}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:local"
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "{path}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
"#
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let archive = folder.path().join("image.tar");
        std::fs::write(&archive, image(&found("busybox").unwrap())).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("containerd")
            .arg("-c")
            .arg(folder.path().join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { process, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !containerd.ctr(&["images", "import", archive.to_str().unwrap()]) {
            let log = || std::fs::read_to_string(containerd.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "containerd does not start: {}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(containerd)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_keeps_the_contract() {
    let Some(containerd) = Containerd::start() else { return };
    let runtime = Arc::new(CriRuntime::new(&format!("unix://{}", containerd.socket().display())));
    // The host's network: the test changes nothing of the machine's.
    let place = testing::Place {
        image: "localhost/busybox:local".to_owned(),
        logs: containerd.folder.path().join("logs"),
        host_network: true,
    };
    testing::runtime(&runtime, &place).await;
}
