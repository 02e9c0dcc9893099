//! The supervisor of MPS against a stand-in control program: what it starts it stops, whatever happens.
#![allow(clippy::print_stdout)] // a child tells its parent

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cotenant_replay::mps::{Daemon, MpsError, Options, find_program};

fn options(program: &str, patience_s: u64) -> Options {
    Options {
        program: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mps").join(program)),
        patience: Some(Duration::from_secs(patience_s)),
        ..Options::default()
    }
}

fn running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|s| !s.is_empty() && !s.trim_start().starts_with('Z'))
}

/// Waits for what must come true; how long it takes is the machine's.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_daemon_answers_serves_its_clients_and_is_gone_after() {
    let daemon =
        Daemon::start(&Options { default_percentage: Some(40.0), ..options("control", 10) });
    let daemon = daemon.unwrap();
    let (pid, folder) = (daemon.pid().unwrap(), daemon.folder().to_path_buf());
    assert!(running(pid));
    assert_eq!(daemon.command("get_default_active_thread_percentage").unwrap(), "40.0");
    assert_eq!(daemon.servers().unwrap(), [4711]);
    let mut client = Command::new("env");
    client.env("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "1");
    daemon.client(&mut client, Some(12.5)).unwrap();
    let said = String::from_utf8(client.output().unwrap().stdout).unwrap();
    let line = |name: &str, value: &str| said.lines().any(|l| l == format!("{name}={value}"));
    assert!(line("CUDA_MPS_PIPE_DIRECTORY", &folder.display().to_string()), "{said}");
    assert!(line("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "12.5"), "{said}");
    for bad in [0.0, -1.0, 100.5, f64::NAN] {
        assert!(matches!(daemon.client(&mut client, Some(bad)), Err(MpsError::Percentage(_))));
    }
    let error = daemon.command("nonsense").unwrap();
    assert_eq!(error, "Unknown command: nonsense");
    daemon.quit().unwrap();
    assert!(!running(pid) && !folder.exists());
}

/// NVIDIA's own control program answers without a GPU as well.
#[test]
fn the_real_control_program_is_kept_the_same_way() {
    if find_program().is_none() {
        eprintln!("skipped: {}", MpsError::Missing);
        return;
    }
    let daemon = Daemon::start(&Options::default()).unwrap();
    let (pid, folder) = (daemon.pid().unwrap(), daemon.folder().to_path_buf());
    daemon.set_default_percentage(40.5).unwrap();
    assert_eq!(daemon.command("get_default_active_thread_percentage").unwrap(), "40.5");
    assert!(daemon.servers().unwrap().is_empty(), "nobody has asked for one");
    assert!(matches!(daemon.require_server(), Err(MpsError::NoServer { .. })));
    daemon.quit().unwrap();
    assert!(!running(pid) && !folder.exists());
}

#[test]
fn two_daemons_do_not_know_each_other_and_a_drop_stops_one() {
    let (a, b) = (Daemon::start(&options("control", 10)), Daemon::start(&options("control", 10)));
    let (a, b) = (a.unwrap(), b.unwrap());
    a.set_default_percentage(25.0).unwrap();
    assert_eq!(b.command("get_default_active_thread_percentage").unwrap(), "100.0");
    let (pid, folder) = (a.pid().unwrap(), a.folder().to_path_buf());
    drop(a);
    assert!(!running(pid) && !folder.exists());
    b.check().unwrap();
    b.quit().unwrap();
}

#[test]
fn a_missing_program_and_a_long_folder_are_named_with_the_remedy() {
    let error = Daemon::start(&options("not-there", 1)).unwrap_err();
    assert!(matches!(error, MpsError::Missing), "{error}");
    assert!(error.to_string().contains("nvidia-compute-utils"), "{error}");
    let parent = Some(PathBuf::from("/tmp").join("x".repeat(90)));
    let error = Daemon::start(&Options { parent, ..options("control", 1) }).unwrap_err();
    assert!(matches!(&error, MpsError::LongPath { .. }), "{error}");
}

#[test]
fn a_daemon_that_ends_at_once_tells_why() {
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    let within = Some(parent.path().to_path_buf());
    let error = Daemon::start(&Options { parent: within, ..options("dies", 10) }).unwrap_err();
    let MpsError::Died { status, log } = &error else { panic!("{error}") };
    assert_eq!((status.as_str(), log.as_str()), ("7", "no device to share"));
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_daemon_that_dies_later_is_noticed() {
    let daemon = Daemon::start(&options("dies-later", 10)).unwrap();
    let error = daemon.servers().unwrap_err();
    assert!(matches!(error, MpsError::Died { .. }), "{error}");
    assert!(matches!(daemon.quit(), Err(MpsError::Died { .. })));
}

#[test]
fn clients_that_ran_without_a_server_are_noticed() {
    let daemon = Daemon::start(&options("no-server", 10)).unwrap();
    assert!(matches!(daemon.require_server(), Err(MpsError::NoServer { .. })));
    let served = Daemon::start(&options("control", 10)).unwrap();
    served.require_server().unwrap();
}

#[test]
fn one_that_never_answers_is_given_up_and_stopped() {
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    let within = Some(parent.path().to_path_buf());
    let error = Daemon::start(&Options { parent: within, ..options("mute", 1) }).unwrap_err();
    assert!(matches!(error, MpsError::NoAnswer { .. }), "{error}");
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn one_that_does_not_quit_is_killed() {
    let daemon = Daemon::start(&options("hangs", 5)).unwrap();
    let (pid, folder) = (daemon.pid().unwrap(), daemon.folder().to_path_buf());
    assert!(matches!(daemon.quit(), Err(MpsError::Killed)));
    assert!(!running(pid) && !folder.exists());
}

/// A process that starts a daemon ends in some way; the daemon must end with it.
fn ends_with(test: &str, end: &str) {
    if let Some(how) = std::env::var_os("COTENANT_CHILD_ENDS") {
        let daemon = Daemon::start(&options("control", 10)).unwrap();
        println!("\n@{} {}", daemon.pid().unwrap(), daemon.folder().display());
        assert!(how != "panic", "as asked");
        if how == "abort" {
            std::process::abort();
        }
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let test = format!("mps::{test}");
    child.args([&test, "--exact", "--nocapture"]).env("COTENANT_CHILD_ENDS", end);
    child.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.into_iter().find_map(|l| l.strip_prefix('@').map(str::to_owned)).unwrap();
    let (pid, folder) = told.split_once(' ').unwrap();
    let pid: u32 = pid.parse().unwrap();
    if let Some(signal) = end.strip_prefix('-') {
        assert!(running(pid));
        Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    }
    assert!(!child.wait().unwrap().success());
    eventually("the daemon is gone", || !running(pid));
    eventually("its folder is gone", || !Path::new(folder).exists());
}

macro_rules! ends {
    ($($test:ident: $how:literal;)*) => {$(
        #[test]
        fn $test() { ends_with(stringify!($test), $how); }
    )*};
}
ends! {
    a_panic_stops_the_daemon: "panic";
    an_abort_stops_the_daemon: "abort";
    ctrl_c_stops_the_daemon: "-INT";
    sigterm_stops_the_daemon: "-TERM";
    kill_9_stops_the_daemon: "-KILL";
}
