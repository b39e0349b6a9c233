//! Through an API server over the durable store, as scheduler_perf measures it: clients create the pods as fast as they can, and the rate is
//! that of the pods that get a node. Server, clients and scheduler share this process and its in-process client.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    scheduling::v1::PriorityClass,
    storage::v1::CSINode,
};
use rk_api::{
    Api, Change, Client, DeleteOptions, Informer, Informers, Patch, Request, Resource, ResourceType, Verb,
    WriteOptions,
    server::{ControlPlane, Security, UserInfo, bootstrap},
};
use rk_benches_common::{
    process,
    progress::Progress,
    stats::{median, number},
};
use rk_sched::{Scheduler, SchedulerConfig};
use rk_store::{DurableOptions, DurableStore};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    options::Options,
    print_head, print_row,
    shapes::{self, NAMESPACES, PRIORITY, Shape},
    workloads::{Churn, Workload},
};

const PRIORITY_CLASS: &str = "high";
/// A workload that binds nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pods per second of each workload.
pub(crate) fn rates(workloads: &[Workload], options: &Options, progress: &mut Progress) -> io::Result<()> {
    print_head("End to end: through an API server with the durable store", progress);
    let mut costs = Vec::new();
    for workload in workloads {
        let (mut rates, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            progress.begin(workload.name);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let measured = runtime.block_on(run(workload, options))?;
            rates.push(workload.measured.1 as f64 / measured.took.as_secs_f64());
            cpu.push(measured.cpu * 1e6 / workload.measured.1 as f64);
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        print_row(workload, &rates, workload.end_to_end, progress);
        costs.push((workload.name, median(&cpu).unwrap_or_default()));
    }
    progress.print("\nCPU µs per pod, of server, clients and scheduler together:\n");
    costs.iter().for_each(|(name, cost)| progress.print(&format!("- {name}: {}", number(*cost))));
    Ok(())
}

struct Measured {
    took: Duration,
    /// Seconds of CPU.
    cpu: f64,
}

async fn run(workload: &Workload, options: &Options) -> io::Result<Measured> {
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let store = open(dir.path()).await?;
    let cluster = Cluster::start(workload, options, Arc::clone(&store)).await?;
    let measured = cluster.measure(workload).await;
    drop(cluster);
    store.close().await;
    measured
}

async fn open(dir: &Path) -> io::Result<Arc<DurableStore>> {
    DurableStore::open(dir.join("store"), DurableOptions::default()).await.map(Arc::new).map_err(io::Error::other)
}

fn named<K: serde::de::DeserializeOwned>(namespace: Option<&str>, name: &str) -> K {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace}})).expect("a name is all it needs")
}

/// A server with the nodes and first pods of a workload, and a scheduler.
struct Cluster {
    admin: Arc<dyn Client>,
    clients: usize,
    pods: AtomicUsize,
    /// The pods of the cluster, kept current for as long as the cluster is there.
    informer: Informer,
    _stop: DropGuard,
}

impl Cluster {
    async fn start(workload: &Workload, options: &Options, store: Arc<DurableStore>) -> io::Result<Self> {
        let builder = ControlPlane::builder().store(store).security(Security::default());
        let server = builder.bootstrap(bootstrap::Config::default()).build().await.map_err(io::Error::other)?;
        let admin = server.client(UserInfo::loopback());
        let informer = Informers::new(Arc::clone(&admin)).of::<Pod>();
        let stop = CancellationToken::new();
        let pods = AtomicUsize::new(0);
        let cluster = Self { admin, clients: options.clients, pods, informer, _stop: stop.clone().drop_guard() };
        cluster.prepare(workload).await?;
        let client = server.client(UserInfo::new("system:kube-scheduler", ["system:authenticated"]));
        let scheduler = Scheduler::new(client, SchedulerConfig::default()).map_err(io::Error::other)?;
        tokio::spawn(scheduler.run(stop));
        for (shape, count) in &workload.before {
            cluster.bind(*shape, *count, NAMESPACES[0]).await?;
        }
        Ok(cluster)
    }

    /// Namespaces, what admission wants of them, and nodes.
    async fn prepare(&self, workload: &Workload) -> io::Result<()> {
        for namespace in NAMESPACES {
            self.create::<Namespace>(None, named(None, namespace)).await?;
            self.create::<ServiceAccount>(Some(namespace), named(Some(namespace), "default")).await?;
        }
        let class = PriorityClass { value: Some(PRIORITY), ..named(None, PRIORITY_CLASS) };
        self.create(None, class).await?;
        let names: Vec<_> = workload.node_names().collect();
        let volumes = workload.has_volumes();
        self.each(names.len(), |number| {
            let (name, zone) = names[number].clone();
            let (admin, node) = (Arc::clone(&self.admin), shapes::node(&name, zone));
            async move {
                let api = Api::<Node>::all(Arc::clone(&admin));
                api.create(&node).await?;
                // As scheduler_perf has it: nodes are fit for work from the start.
                api.patch(&name, Patch::merge(json!({"spec": {"taints": null}}))).await?;
                api.patch_status(&name, Patch::merge(json!({"status": node.status}))).await?;
                if volumes {
                    Api::<CSINode>::all(admin).create(&shapes::csi_node(&name)).await?;
                }
                Ok(())
            }
        })
        .await
    }

    async fn create<K: ResourceType>(&self, namespace: Option<&str>, object: K) -> io::Result<()> {
        let api = match namespace {
            Some(namespace) => Api::<K>::namespaced(Arc::clone(&self.admin), namespace),
            None => Api::<K>::all(Arc::clone(&self.admin)),
        };
        api.create(&object).await.map(drop).map_err(io::Error::other)
    }

    /// Does something so many times, by as many clients as there are.
    async fn each<F>(&self, count: usize, work: impl Fn(usize) -> F) -> io::Result<()>
    where
        F: Future<Output = Result<(), rk_api::Error>> + Send + 'static,
    {
        let mut tasks: JoinSet<Result<(), rk_api::Error>> = JoinSet::new();
        for number in 0..count {
            if tasks.len() == self.clients
                && let Some(done) = tasks.join_next().await
            {
                done.map_err(io::Error::other)?.map_err(io::Error::other)?;
            }
            tasks.spawn(work(number));
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(io::Error::other)?.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Creates pods and waits until all of them have nodes.
    async fn bind(&self, shape: Shape, count: usize, namespace: &'static str) -> io::Result<()> {
        let first = self.pods.fetch_add(count, Ordering::Relaxed);
        let mut changes = self.informer.subscribe();
        let bound = tokio::spawn(async move { all_bound(&mut changes, "pod-", first + count).await });
        let resource = Resource::of::<Pod>();
        // As a tree from the start: what a typed client would spend on making it is not the server's.
        let mut template =
            serde_json::to_value(shapes::pod(&template(shape), namespace, "")).map_err(io::Error::other)?;
        (template["apiVersion"], template["kind"]) = (resource.api_version().into(), resource.kind.as_ref().into());
        self.each(count, |number| {
            let name = format!("pod-{}", first + number);
            let mut body = template.clone();
            body["metadata"]["name"] = name.as_str().into();
            for volume in body.pointer_mut("/spec/volumes").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(claim) = volume.pointer_mut("/persistentVolumeClaim/claimName") {
                    *claim = name.as_str().into();
                }
            }
            let (admin, with_volume) = (Arc::clone(&self.admin), shape == Shape::Claim);
            let create = Request {
                resource: resource.clone(),
                namespace: namespace.to_owned(),
                name: String::new(),
                subresource: String::new(),
                verb: Verb::Create(body, WriteOptions::default()),
            };
            async move {
                if with_volume {
                    add_volume(&admin, namespace, &name).await?;
                }
                admin.request(create).await.map(drop)
            }
        })
        .await?;
        bound.await.map_err(io::Error::other)?
    }

    async fn measure(&self, workload: &Workload) -> io::Result<Measured> {
        let usage = || process::usage(std::process::id()).map(|usage| usage.cpu);
        let churn = workload.churn.map(|churn| tokio::spawn(churning(churn, Arc::clone(&self.admin))));
        let (cpu, begun) = (usage()?, Instant::now());
        self.bind(workload.measured.0, workload.measured.1, NAMESPACES[1]).await?;
        let measured = Measured { took: begun.elapsed(), cpu: usage()? - cpu };
        if let Some(churn) = churn {
            if churn.is_finished() {
                churn.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
            } else {
                churn.abort();
            }
        }
        Ok(measured)
    }
}

/// Priorities come from classes, as admission sees to.
fn template(shape: Shape) -> Pod {
    let mut pod = shape.template();
    if let Some(spec) = &mut pod.spec
        && spec.priority.take().is_some()
    {
        spec.priority_class_name = Some(PRIORITY_CLASS.to_owned());
    }
    pod
}

async fn add_volume(admin: &Arc<dyn Client>, namespace: &str, name: &str) -> Result<(), rk_api::Error> {
    let (volume, claim) = shapes::volume(namespace, name);
    let bound = || Patch::merge(json!({"status": {"phase": "Bound"}}));
    let volumes = Api::<PersistentVolume>::all(Arc::clone(admin));
    volumes.create(&volume).await?;
    volumes.patch_status(name, bound()).await?;
    let claims = Api::<PersistentVolumeClaim>::namespaced(Arc::clone(admin), namespace);
    claims.create(&claim).await?;
    claims.patch_status(name, bound()).await.map(drop)
}

/// Waits until so many pods of a prefix have had a node.
async fn all_bound(changes: &mut mpsc::UnboundedReceiver<Change>, prefix: &str, count: usize) -> io::Result<()> {
    let mut bound = std::collections::HashSet::new();
    while bound.len() < count {
        let change = tokio::time::timeout(PATIENCE, changes.recv()).await.ok().flatten().ok_or_else(|| {
            io::Error::other(format!("{} of {count} pods got a node, and then none for a minute", bound.len()))
        })?;
        let object = change.object();
        if object.meta().name.starts_with(prefix) && !bound.contains(&object.meta().name) {
            let pod = object.typed::<Pod>().map_err(io::Error::other)?;
            if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
                bound.insert(object.meta().name.clone());
            }
        }
    }
    Ok(())
}

/// What happens beside the measured pods, without an end.
async fn churning(churn: Churn, admin: Arc<dyn Client>) -> Result<(), rk_api::Error> {
    let (Churn::Create(_, every, _) | Churn::Recreate(every, _)) = churn;
    let mut tick = tokio::time::interval(Duration::from_millis(every));
    let pods = Api::<Pod>::namespaced(Arc::clone(&admin), NAMESPACES[0]);
    let mut number = 0;
    loop {
        tick.tick().await;
        number += 1;
        let name = format!("churn-{number}");
        match churn {
            Churn::Create(shape, ..) => {
                pods.create(&shapes::pod(&template(shape), NAMESPACES[0], &name)).await?;
            }
            Churn::Recreate(..) => {
                let nodes = Api::<Node>::all(Arc::clone(&admin));
                let services = Api::<Service>::namespaced(Arc::clone(&admin), NAMESPACES[0]);
                nodes.create(&shapes::useless_node(&name)).await?;
                pods.create(&shapes::pod(&template(Shape::TooLarge), NAMESPACES[0], &name)).await?;
                let ports = json!([{"protocol": "TCP", "port": 8080, "targetPort": 8080}]);
                let service = json!({"metadata": {"name": name}, "spec": {"selector": {"app": "foo"}, "ports": ports}});
                let service: Service = serde_json::from_value(service).expect("a Service");
                services.create(&service).await?;
                tick.tick().await;
                nodes.delete(&name, DeleteOptions::default()).await?;
                pods.delete(&name, DeleteOptions::default()).await?;
                services.delete(&name, DeleteOptions::default()).await?;
            }
        }
    }
}
