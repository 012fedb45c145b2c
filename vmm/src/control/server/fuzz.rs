//! Lines on the control socket that are anything.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use super::{Connection, to_line};
use crate::control::{Nothing, Response};

/// What a socket takes at once.
const MAX_INPUT: usize = 16 << 10;

/// Sends bytes. Achieves as much as there are requests; each complete line has exactly one answer.
pub(crate) fn run(data: &[u8]) -> usize {
    let data = &data[..data.len().min(MAX_INPUT)];
    let Ok((stream, mut peer)) = UnixStream::pair() else { return 0 };
    if stream.set_nonblocking(true).is_err() || peer.write_all(data).is_err() {
        return 0;
    }
    let mut connection = Connection { stream, received: Vec::new(), passed: None };
    let mut requests = 0;
    let served = connection.serve(|request, _| {
        requests += 1;
        let again = serde_json::to_vec(&request).map(|json| serde_json::from_slice(&json));
        assert!(matches!(again, Ok(Ok(again)) if request == again), "{request:?} is another after JSON");
        to_line(&Response::Ok(Nothing {}))
    });
    drop(connection);
    let mut answers = String::new();
    let read = peer.read_to_string(&mut answers);
    if served.is_ok() {
        assert!(read.is_ok(), "an answer is not text");
        let lines = data.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(answers.lines().count(), lines, "{answers}");
        assert!(
            answers.lines().all(|line| serde_json::from_str::<Response<Nothing>>(line).is_ok()),
            "{answers}"
        );
    }
    requests
}

/// All requests, in good and bad company.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let all = concat!(
        "{\"op\":\"state\"}\n{\"op\":\"metrics\"}\n{\"op\":\"metrics\",\"format\":\"prometheus\"}\n",
        "{\"op\":\"attach_net\",\"id\":\"e\",\"mac\":\"02:00:00:00:00:01\",\"mtu\":1400,\"limit_rx\":{}}\n",
        "{\"op\":\"pause\"}\n{\"op\":\"resume\"}\n{\"op\":\"retry_disks\"}\n{\"op\":\"shutdown\"}\n"
    );
    vec![all.into(), b"\n\xff\n{\"op\":\"state\",\"x\":1}\n{\"op\":\"state\"}\n{\"op\"".to_vec()]
}
