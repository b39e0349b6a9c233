//! The conformance suite of `Reconcile`, of the controllers of Kubernetes.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use rk_api::{Client, Error, Informers, Patch, Request, Verb, WriteOptions, testing::TestControlPlane};
use rk_controller::{Action, Context, Controller, ControllerManager, ManagerConfig, Reconcile, testing};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Creates objects, in this namespace if their kind has one.
async fn create(control_plane: &TestControlPlane, namespace: &str, objects: &[Value]) -> Result<(), Error> {
    for object in objects {
        let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let resource = control_plane.server().resource_of(api_version, kind).unwrap();
        let namespace = if resource.namespaced { namespace.to_owned() } else { String::new() };
        let verb = Verb::Create(object.clone(), WriteOptions::default());
        let request = Request { resource, namespace, name: String::new(), subresource: String::new(), verb };
        let created = control_plane.client().request(request.clone()).await?;
        if object["status"].is_object() {
            let patch = Patch::merge(json!({"status": object["status"]}));
            let verb = Verb::Patch(patch, WriteOptions::default());
            let name = created.meta().name.to_string();
            control_plane.client().request(Request { name, subresource: "status".to_owned(), verb, ..request }).await?;
        }
    }
    Ok(())
}

/// Runs controllers.
fn manager(
    controllers: &'static [&'static str],
) -> impl Fn(Arc<dyn Client>, CancellationToken) -> BoxFuture<'static, ()> {
    move |client, stop| {
        let config = ManagerConfig {
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            root_ca: Some("a certificate".to_owned()),
            ..ManagerConfig::default()
        };
        ControllerManager::new(client, config).run(stop).boxed()
    }
}

/// Runs the suite on controllers, on these objects.
async fn conform(controllers: &'static [&'static str], objects: &[Value]) {
    let world = async |control_plane: &TestControlPlane| create(control_plane, "default", objects).await;
    testing::conformance(world, manager(controllers)).await;
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn pod(name: &str, app: &str, ip: &str) -> Value {
    let mut pod = template(app);
    pod["metadata"]["name"] = name.into();
    pod["spec"]["nodeName"] = "node-1".into();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["status"] = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}]});
    pod
}

#[tokio::test(start_paused = true)]
async fn replica_sets_conform() {
    let replica_set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("web")}});
    // One too many, of which one is adopted and one is deleted.
    conform(&["replicaset-controller"], &[replica_set, pod("a", "web", "10.0.0.1")]).await;
}

#[tokio::test(start_paused = true)]
async fn replica_sets_with_too_many_pods_conform() {
    let replica_set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template("web")}});
    let mut waiting = pod("b", "web", "10.0.0.2");
    waiting["status"] = json!({"phase": "Pending"});
    conform(&["replicaset-controller"], &[pod("a", "web", "10.0.0.1"), waiting, replica_set]).await;
}

#[tokio::test(start_paused = true)]
async fn deployments_conform() {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("web")}});
    conform(&["deployment-controller", "replicaset-controller"], &[deployment]).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_conform() {
    let mut template = template("work");
    template["spec"]["restartPolicy"] = "Never".into();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
        "spec": {"completions": 3, "parallelism": 2, "template": template}});
    conform(&["job-controller"], &[job]).await;
}

#[tokio::test(start_paused = true)]
async fn stateful_sets_conform() {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"replicas": 2, "serviceName": "db", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "db"}}, "template": template("db"),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}});
    conform(&["statefulset-controller"], &[set]).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_and_their_slices_conform() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    conform(
        &["endpoints-controller", "endpointslice-controller"],
        &[service, pod("a", "web", "10.0.0.1"), pod("b", "web", "10.0.0.2")],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn service_accounts_and_root_certificates_conform() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dev"}});
    conform(&["serviceaccount-controller", "root-ca-certificate-publisher-controller"], &[namespace]).await;
}

#[tokio::test(start_paused = true)]
async fn namespaces_that_go_conform() {
    let world = async |control_plane: &TestControlPlane| {
        let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        create(control_plane, "", &[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dev"}})])
            .await?;
        create(control_plane, "dev", &[map("a"), map("b"), map("c")]).await?;
        let namespaces = rk_api::Api::<k8s_openapi::api::core::v1::Namespace>::all(control_plane.client());
        namespaces.delete("dev", rk_api::DeleteOptions::default()).await.map(drop)
    };
    testing::conformance(world, manager(&["namespace-controller"])).await;
}

#[tokio::test(start_paused = true)]
async fn what_lost_its_owner_is_collected() {
    let world = async |control_plane: &TestControlPlane| {
        let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": uid, "blockOwnerDeletion": true}]);
        let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": owner("1-2-3")}});
        create(control_plane, "default", &[map("a"), map("b")]).await
    };
    testing::conformance(world, manager(&["garbage-collector-controller"])).await;
}

/// Makes a ConfigMap for each Secret, unless it remembers that it did.
struct Forgetful {
    done: Mutex<BTreeSet<String>>,
    /// Whether it remembers before it has done it.
    early: bool,
}

#[async_trait]
impl Reconcile for Forgetful {
    type Object = Secret;

    async fn reconcile(&self, secret: Arc<Secret>, context: &Context) -> Result<Action, rk_controller::Error> {
        let name = secret.metadata.name.clone().unwrap_or_default();
        if self.done.lock().contains(&name) {
            return Ok(Action::await_change());
        }
        if self.early {
            self.done.lock().insert(name.clone());
        }
        let mut map = ConfigMap::default();
        if self.early {
            map.metadata.name = Some(name.clone());
        } else {
            map.metadata.generate_name = Some(format!("{name}-"));
        }
        match context.api::<ConfigMap>("default").create(&map).await {
            Err(error) if !error.is_already_exists() => return Err(error.into()),
            _ => {}
        }
        self.done.lock().insert(name);
        Ok(Action::await_change())
    }
}

async fn forgetful(early: bool) {
    let world = async |control_plane: &TestControlPlane| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
        create(control_plane, "default", &[secret]).await
    };
    let start = |client: Arc<dyn Client>, stop: CancellationToken| async move {
        let reconciler = Forgetful { done: Mutex::default(), early };
        Controller::new("forgetful", reconciler, &Informers::new(client)).run(stop).await;
    };
    testing::conformance(world, start).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a new instance wrote [create ConfigMap default/]")]
async fn one_that_only_remembers_what_it_did_does_not_conform() {
    forgetful(false).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "after write 0 (create ConfigMap default/) failed there is []")]
async fn one_that_takes_a_write_for_done_does_not_conform() {
    forgetful(true).await;
}
