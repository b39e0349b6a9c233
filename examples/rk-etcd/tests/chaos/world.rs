//! The network and the disks of the members.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The members' numbers.
pub const IDS: [u64; 3] = [1, 2, 3];

/// The space of each member's disk.
const DISK: &str = "size=160m";

/// Runs a command that must succeed.
fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether this user may make namespaces here and has the programs for it. In CI it must be so.
pub fn can_be_made() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", "ip link add type veth && iptables -w -S && nsenter --version"])
        .output();
    let missing = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    assert!(std::env::var_os("CI").is_none(), "required in CI: root with unshare, nsenter, ip and iptables: {missing}");
    eprintln!("skipped: it needs root with unshare, nsenter, ip and iptables: {missing}");
    false
}

/// Makes a network of a bridge, where the clients are, and a namespace for each member, and a disk for each.
pub fn make() {
    run("mount -t tmpfs tmpfs /run");
    run("mount -t tmpfs tmpfs /mnt");
    std::fs::create_dir("/run/netns").unwrap();
    run("ip link set lo up");
    run("ip link add bridge type bridge");
    run("ip addr add 10.0.0.254/24 dev bridge");
    run("ip link set bridge up");
    for id in IDS {
        let ns = namespace(id);
        run(&format!("ip netns add {ns}"));
        run(&format!("ip link add port{id} type veth peer name eth0 netns {ns}"));
        run(&format!("ip link set port{id} master bridge up"));
        run(&format!("ip -n {ns} addr add {}/24 dev eth0", address(id)));
        run(&format!("ip -n {ns} link set eth0 up"));
        run(&format!("ip -n {ns} link set lo up"));
        let disk = disk(id);
        std::fs::create_dir(&disk).unwrap();
        run(&format!("mount -t tmpfs -o {DISK} tmpfs {}", disk.display()));
    }
}

pub fn namespace(id: u64) -> String {
    format!("member{id}")
}

pub fn address(id: u64) -> String {
    format!("10.0.0.{id}")
}

/// The folder of a member's disk.
pub fn disk(id: u64) -> PathBuf {
    Path::new("/mnt").join(namespace(id))
}

/// A program in a member's network.
pub fn in_namespace(id: u64, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", namespace(id))).arg(program);
    command
}
