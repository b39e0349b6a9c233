//! Each target for a few seconds.

use std::process::Command;

/// CPU time of each.
const SECONDS: &str = "5";

fn run(target: &str) {
    let done = Command::new(env!("CARGO_BIN_EXE_rk-fuzz")).args([target, SECONDS]).output().expect("it can be run");
    let told = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}");
    let read = told.rsplit(" CPU time, ").next().and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(read.is_some_and(|read| read > 0), "nothing was read as whole: {told}");
}

macro_rules! targets {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            run(stringify!($target));
        }
    )*};
}

targets!(command head log values checkpoint snapshot file request peer api cel);
