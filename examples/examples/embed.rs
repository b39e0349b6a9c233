//! A product with a control plane inside: it defines its own type, serves it, and reconciles it, in one process.
//!
//! The product is a print shop. Somebody writes an `Order`; the shop's reconciler prints it, page by page, and says in the
//! order's status how far it is. Any Kubernetes client can be the somebody: here it is the program itself.

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use kube::{CustomResource, CustomResourceExt};
use rk_api::{
    Api, Informers, Patch, TypedEvent, WatchOptions,
    server::{Server, UserInfo},
};
use rk_controller::{Action, Context, Controller, Reconcile};
use rk_store::MemoryStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// What a customer orders.
#[derive(CustomResource, Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[kube(group = "shop.example.com", version = "v1", kind = "Order", namespaced, status = "OrderStatus")]
pub struct OrderSpec {
    /// Title of the document.
    title: String,
    /// How many pages it has.
    #[schemars(range(min = 1, max = 1000))]
    pages: u32,
}

/// How far the order is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct OrderStatus {
    /// Pages printed.
    printed: u32,
}

struct PrintShop;

#[async_trait]
impl Reconcile for PrintShop {
    type Object = Order;

    async fn reconcile(&self, order: Arc<Order>, context: &Context) -> Result<Action, rk_controller::Error> {
        let printed = order.status.as_ref().map_or(0, |status| status.printed);
        if printed >= order.spec.pages {
            return Ok(Action::await_change());
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // the printer at work
        let name = order.metadata.name.as_deref().unwrap_or_default();
        let orders: Api<Order> = context.api(order.metadata.namespace.as_deref().unwrap_or_default());
        orders.patch_status(name, Patch::merge(json!({"status": {"printed": printed + 1}}))).await?;
        Ok(Action::await_change()) // the change of the status calls again
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await?;
    server.define(serde_json::to_value(Order::crd())?).await?;
    let client = server.client(UserInfo::loopback());

    let shutdown = CancellationToken::new();
    let informers = Informers::new(Arc::clone(&client));
    let shop = tokio::spawn(Controller::new("print-shop", PrintShop, &informers).run(shutdown.clone()));

    let orders: Api<Order> = Api::namespaced(client, "default");
    let mut changes = orders.watch(WatchOptions::default()).await?;
    orders.create(&Order::new("thesis", OrderSpec { title: "On Control Planes".into(), pages: 3 })).await?;

    // What the type does not allow is refused, with the field and the reason.
    let wrong = orders.create(&Order::new("nothing", OrderSpec { title: "Empty".into(), pages: 0 })).await;
    println!("an order of 0 pages: {}", wrong.err().map(|error| error.to_string()).unwrap_or_default());

    while let Some(event) = changes.next().await {
        let (TypedEvent::Added(order) | TypedEvent::Modified(order)) = event? else { continue };
        let printed = order.status.as_ref().map_or(0, |status| status.printed);
        println!("{}: {printed} of {} pages", order.spec.title, order.spec.pages);
        if printed == order.spec.pages {
            break;
        }
    }
    shutdown.cancel();
    Ok(shop.await?)
}
