//! The typed face of a [`Client`].

use std::{marker::PhantomData, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use serde_json::Value;

use super::{Client, DeleteOptions, List, ListOptions, Request, Verb, WatchEvent, WatchOptions, WriteOptions};
use crate::{Error, Object, Patch, Resource, ResourceType};

/// One collection of one type, in one namespace or all.
pub struct Api<K> {
    client: Arc<dyn Client>,
    resource: Resource,
    namespace: String,
    options: WriteOptions,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: Arc::clone(&self.client),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            options: self.options.clone(),
            kind: PhantomData,
        }
    }
}

/// A typed page of a collection.
#[derive(Debug, Clone)]
pub struct TypedList<K> {
    /// The objects, shared with every other reader in the process.
    pub items: Vec<Arc<K>>,
    /// Where a watch may start.
    pub resource_version: String,
    /// The token for the next page; empty at the end.
    pub continue_token: String,
}

/// A typed change of a collection.
#[derive(Debug, Clone)]
pub enum TypedEvent<K> {
    /// It is new, or came to match.
    Added(Arc<K>),
    /// It changed.
    Modified(Arc<K>),
    /// It went: its last state.
    Deleted(Arc<K>),
}

impl<K: ResourceType> Api<K> {
    /// The objects of the whole cluster: all namespaces, or a kind that has none.
    pub fn all(client: Arc<dyn Client>) -> Self {
        Self::namespaced(client, "")
    }

    /// The objects of one namespace.
    pub fn namespaced(client: Arc<dyn Client>, namespace: &str) -> Self {
        Self {
            client,
            resource: Resource::of::<K>(),
            namespace: namespace.to_owned(),
            options: WriteOptions::default(),
            kind: PhantomData,
        }
    }

    /// Writes with these options from now on.
    #[must_use]
    pub fn with_options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }

    /// The same collection in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The collection's resource.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The untyped client.
    pub fn client(&self) -> &Arc<dyn Client> {
        &self.client
    }

    async fn request(&self, name: &str, subresource: &str, verb: Verb) -> Result<Arc<Object>, Error> {
        let request = Request {
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            verb,
        };
        self.client.request(request).await
    }

    /// Reads an object.
    ///
    /// # Errors
    /// `NotFound` and whatever else the API says; so for all verbs.
    pub async fn get(&self, name: &str) -> Result<Arc<K>, Error> {
        self.request(name, "", Verb::Get).await?.typed()
    }

    /// Reads an object that may be absent.
    ///
    /// # Errors
    /// As [`Api::get`], but for `NotFound`.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Arc<K>>, Error> {
        match self.get(name).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Lists objects.
    ///
    /// # Errors
    /// As the API says.
    pub async fn list(&self, options: ListOptions) -> Result<TypedList<K>, Error> {
        let List { items, resource_version, continue_token, .. } =
            self.client.list(&self.resource, &self.namespace, options).await?;
        let items = items.iter().map(|object| object.typed()).collect::<Result<_, _>>()?;
        Ok(TypedList { items, resource_version, continue_token })
    }

    /// Watches objects; bookmarks are consumed.
    ///
    /// # Errors
    /// As the API says; the stream ends after an error.
    pub async fn watch(
        &self,
        options: WatchOptions,
    ) -> Result<BoxStream<'static, Result<TypedEvent<K>, Error>>, Error> {
        let events = self.client.watch(&self.resource, &self.namespace, options).await?;
        let typed = |event: Result<WatchEvent, Error>| {
            let event = match event {
                Ok(WatchEvent::Added(object)) => object.typed().map(TypedEvent::Added),
                Ok(WatchEvent::Modified(object)) => object.typed().map(TypedEvent::Modified),
                Ok(WatchEvent::Deleted(object)) => object.typed().map(TypedEvent::Deleted),
                Ok(WatchEvent::Bookmark { .. }) => return futures::future::ready(None),
                Err(error) => Err(error),
            };
            futures::future::ready(Some(event))
        };
        Ok(events.filter_map(typed).boxed())
    }

    fn encode(&self, object: &K) -> Result<Value, Error> {
        let mut value = serde_json::to_value(object).map_err(|e| Error::decode(&self.resource.kind, &e))?;
        if let Value::Object(fields) = &mut value {
            fields.insert("apiVersion".into(), self.resource.api_version().into());
            fields.insert("kind".into(), self.resource.kind.as_ref().into());
        }
        Ok(value)
    }

    /// Makes an object.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid` and whatever else the API says.
    pub async fn create(&self, object: &K) -> Result<Arc<K>, Error> {
        let body = self.encode(object)?;
        self.request("", "", Verb::Create(body, self.options.clone())).await?.typed()
    }

    /// Replaces an object; one with a `resourceVersion` replaces only that version.
    ///
    /// # Errors
    /// `Conflict`, `NotFound`, `Invalid` and whatever else the API says.
    pub async fn update(&self, object: &K) -> Result<Arc<K>, Error> {
        self.update_subresource(object, "").await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// As [`Api::update`].
    pub async fn update_status(&self, object: &K) -> Result<Arc<K>, Error> {
        self.update_subresource(object, "status").await
    }

    /// Replaces what a subresource of an object shows, such as the `approval` of a CertificateSigningRequest.
    ///
    /// # Errors
    /// As [`Api::update`].
    pub async fn update_subresource(&self, object: &K, subresource: &str) -> Result<Arc<K>, Error> {
        let body = self.encode(object)?;
        let name = object.meta().name.clone().unwrap_or_default();
        self.request(&name, subresource, Verb::Update(body, self.options.clone())).await?.typed()
    }

    /// Changes parts of an object.
    ///
    /// # Errors
    /// As the API says.
    pub async fn patch(&self, name: &str, patch: Patch) -> Result<Arc<K>, Error> {
        self.request(name, "", Verb::Patch(patch, self.options.clone())).await?.typed()
    }

    /// Changes parts of an object's status.
    ///
    /// # Errors
    /// As the API says.
    pub async fn patch_status(&self, name: &str, patch: Patch) -> Result<Arc<K>, Error> {
        self.request(name, "status", Verb::Patch(patch, self.options.clone())).await?.typed()
    }

    /// Posts to a subresource that is not the object itself (`binding`, `eviction`, `token`).
    ///
    /// # Errors
    /// As the API says.
    pub async fn create_subresource(&self, name: &str, subresource: &str, body: Value) -> Result<Arc<Object>, Error> {
        self.request(name, subresource, Verb::Create(body, self.options.clone())).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (a precondition failed) and whatever else the API says.
    pub async fn delete(&self, name: &str, options: DeleteOptions) -> Result<Arc<Object>, Error> {
        self.request(name, "", Verb::Delete(options)).await
    }
}
