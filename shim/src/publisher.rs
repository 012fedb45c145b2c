//! Sends events to containerd, in the order in which they happened.
//!
//! An event that can't be sent is tried again before the next one is, for as long as containerd may take to restart; then it
//! is dropped, since a containerd that comes back asks for the state of every container anyway.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{
    protobuf::MessageFull,
    shim::{event::Envelope, events::ForwardRequest},
    shim_async::{Client, EventsClient},
};
use tokio::{
    net::UnixStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::timeout,
};
use ttrpc::asynchronous::transport::Socket;

use crate::message;

/// How long containerd may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often an event is tried, and how long in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// How long a shim that ends waits for its last events to be sent.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Takes events, at once.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    namespace: String,
    queue: UnboundedSender<Envelope>,
}

/// What sends them.
#[derive(Debug)]
pub(crate) struct Sending(JoinHandle<()>);

impl Publisher {
    /// Starts sending to containerd's ttrpc socket.
    pub(crate) fn start(address: &str, namespace: &str) -> (Self, Sending) {
        let (queue, events) = unbounded_channel();
        let socket = PathBuf::from(address.trim_start_matches("unix://"));
        let sending = tokio::spawn(send_all(socket, events));
        (Self { namespace: namespace.to_owned(), queue }, Sending(sending))
    }

    /// Says that something has happened now.
    pub(crate) fn publish<M: MessageFull>(&self, topic: &str, event: &M) {
        let event = match message::any(event) {
            Ok(event) => event,
            Err(error) => return tracing::error!("cannot publish {topic}: {}", error.text()),
        };
        let envelope = Envelope {
            timestamp: Some(message::timestamp(SystemTime::now())).into(),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event).into(),
            ..Envelope::default()
        };
        // The receiver lives as long as the shim.
        let _ = self.queue.send(envelope);
    }
}

impl Sending {
    /// Waits until all is sent, once every [`Publisher`] is gone; not for long.
    pub(crate) async fn finish(self) {
        if timeout(LAST_WORDS, self.0).await.is_err() {
            tracing::warn!("containerd did not take the last events");
        }
    }
}

async fn send_all(socket: PathBuf, mut events: UnboundedReceiver<Envelope>) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        let topic = envelope.topic.clone();
        let request = ForwardRequest { envelope: Some(envelope).into(), ..ForwardRequest::default() };
        let mut last = String::new();
        let mut sent = false;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match send(&socket, &mut client, &request).await {
                Ok(()) => {
                    sent = true;
                    break;
                }
                Err(error) => last = error,
            }
        }
        if !sent {
            tracing::error!("event {topic} is lost: {last}");
        }
    }
}

async fn send(
    socket: &PathBuf,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> Result<(), String> {
    if client.is_none() {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        *client = Some(EventsClient::new(Client::new(Socket::new(stream))));
    }
    let Some(connected) = client else { return Ok(()) };
    let context = ttrpc::context::with_duration(ANSWER_WITHIN);
    match connected.forward(context, request).await {
        Ok(_) => Ok(()),
        // containerd's own "no" will be the same the next time.
        Err(ttrpc::Error::RpcStatus(status)) if status.code() != ttrpc::Code::DEADLINE_EXCEEDED => {
            tracing::error!("containerd does not want an event: {}", status.message());
            Ok(())
        }
        Err(error) => {
            *client = None;
            Err(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use containerd_shim_protos::{
        api::Empty,
        events::task::TaskOOM,
        protobuf::Message,
        shim_async::{Events, create_events},
    };
    use ttrpc::asynchronous::{Server, TtrpcContext};

    use super::*;

    /// A containerd that refuses to answer the first time.
    #[derive(Default)]
    struct Containerd {
        seen: Mutex<Vec<String>>,
    }

    #[async_trait::async_trait]
    impl Events for Containerd {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let event = TaskOOM::parse_from_bytes(&request.envelope.event.value).unwrap();
            self.seen.lock().unwrap().push(format!(
                "{} {} {}",
                request.envelope.namespace, request.envelope.topic, event.container_id
            ));
            Ok(Empty::default())
        }
    }

    #[tokio::test]
    async fn events_arrive_in_order_also_when_containerd_comes_late() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("containerd.sock.ttrpc");
        let (publisher, sending) = Publisher::start(socket.to_str().unwrap(), "ns");
        for id in ["a", "b", "c"] {
            publisher.publish("/tasks/oom", &TaskOOM { container_id: id.into(), ..TaskOOM::default() });
        }
        let containerd = Arc::new(Containerd::default());
        let mut server = Server::new()
            .bind(&format!("unix://{}", socket.display()))
            .unwrap()
            .register_service(create_events(containerd.clone()));
        server.start().await.unwrap();
        drop(publisher);
        sending.finish().await;
        assert_eq!(
            *containerd.seen.lock().unwrap(),
            ["ns /tasks/oom a", "ns /tasks/oom b", "ns /tasks/oom c"]
        );
        server.shutdown().await.unwrap();
    }
}
