use rk_sched::{Profile, simulate::Simulator};
use serde_json::json;
fn main() {
    for nodes in [100usize, 1000, 5000] {
        for kind in ["basic", "spread", "anti", "pref"] {
            let mut c = Simulator::new(Profile::kubernetes("default-scheduler"), 1);
            for i in 0..nodes {
                c.set_node(serde_json::from_value(json!({"metadata":{"name":format!("node-{i}"),"labels":{"kubernetes.io/hostname":format!("node-{i}"),"topology.kubernetes.io/zone":format!("z{}",i%3)}},
                 "status":{"allocatable":{"cpu":"4","memory":"32Gi","pods":"110"}}})).unwrap());
            }
            c.snapshot_mut().workloads.set_service("default", "s", Some("app=web".parse().unwrap()));
            let n = 2000.min(nodes * 8);
            let pods: Vec<k8s_openapi::api::core::v1::Pod> = (0..n).map(|i| {
                let mut p = json!({"metadata":{"name":format!("p{i}"),"namespace":"default","labels":{"app": if kind=="basic" {"x"} else {"web"}}},
                    "spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m","memory":"500Mi"}}}]}});
                if kind=="anti" { p["metadata"]["labels"]["color"]=json!(format!("g{}", i%20)); p["spec"]["affinity"]=json!({"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchLabels":{"color":format!("g{}", i%20)}},"topologyKey":"kubernetes.io/hostname"}]}}); }
                if kind=="pref" { p["spec"]["affinity"]=json!({"podAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"podAffinityTerm":{"labelSelector":{"matchLabels":{"app":"web"}},"topologyKey":"topology.kubernetes.io/zone"}}]}}); }
                serde_json::from_value(p).unwrap()
            }).collect();
            let t = std::time::Instant::now();
            let mut bad = 0;
            for p in pods {
                if c.schedule(p).is_err() {
                    bad += 1
                }
            }
            let e = t.elapsed();
            println!(
                "{nodes} nodes {kind}: {:.0} pods/s ({:.1} us/pod) failed {bad}",
                n as f64 / e.as_secs_f64(),
                e.as_micros() as f64 / n as f64
            );
        }
    }
}
