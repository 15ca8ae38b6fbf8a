//! nginx, which asks nobody: instances restart in place behind it.

use crate::fleet::{
    BOUND, Instance, answers, assert_whole, fleet, load, placed, program, roll, shipped,
};
use curtsy_prove::child::{Child, ChildSignal, free_address};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_restarted_twice_lose_nothing_at_its_front() {
    let Some(nginx) = program("nginx") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("nginx.conf");
    let mut fleet = fleet().await;
    let front = free_address().unwrap();
    let pid = directory.path().join("nginx.pid");
    let again = "proxy_next_upstream error timeout;";
    let shipped = shipped("nginx/nginx.conf");
    assert!(shipped.contains(again));
    // It may not hide what is lost behind it by trying again.
    let text = placed(&shipped, &fleet, front)
        .replace(again, "proxy_next_upstream off;")
        .replace("/run/nginx-curtsy.pid", &pid.display().to_string())
        .replace("http {", "http { access_log off;");
    std::fs::write(&config, text).unwrap();
    let check = std::process::Command::new(&nginx)
        .args(["-t", "-e", "stderr", "-c"])
        .arg(&config)
        .output();
    let check = check.unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(check.status.success() && !said.contains("[warn]"), "{said}");
    let mut command = Command::new(nginx);
    command
        .args(["-e", "stderr", "-g", "daemon off;", "-c"])
        .arg(&config);
    let balancer = Child::spawn(command).unwrap();
    answers(front, &balancer).await;

    let mut serving = [0; 3].map(|_: usize| 0_u32);
    for (pid, instance) in serving.iter_mut().zip(&fleet) {
        *pid = instance.child.pid().unwrap();
    }
    let mut at = 0;
    let report = roll(
        load(front),
        &mut fleet,
        async |instance: &mut Instance, round| {
            let pid = i32::try_from(serving[at % 3]).unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, ChildSignal::HUP).unwrap();
            let what = format!("generation {round} serves (pid ");
            let line = instance
                .child
                .wait_for_line(|line| line.contains(&what), BOUND)
                .await;
            let line = line.unwrap_or_else(|error| panic!("{error}\n{}", instance.child.stderr()));
            let pid = line
                .split(&what)
                .nth(1)
                .and_then(|rest| rest.split(')').next());
            serving[at % 3] = pid.unwrap().parse().unwrap();
            at += 1;
        },
    )
    .await;
    println!("{report}");
    for pid in serving {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, ChildSignal::KILL).unwrap();
    }
    assert_whole(&report, &balancer, 9);
}
