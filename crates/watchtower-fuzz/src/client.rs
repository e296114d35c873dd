//! The client: what a server, or somebody in its place, answers.

use watchtower_client::fuzzing;

/// A message that is read is written as one that is read the same. What is not understood is
/// told without control characters.
pub(crate) fn client(data: &[u8]) {
    if let Ok(message) = fuzzing::message_of_stream(data) {
        let written = message.to_json();
        assert!(!written.contains(['\n', '\r']), "{written}");
        let again = fuzzing::message_of_stream(written.as_bytes()).expect("it was written");
        assert_eq!(again.to_json(), written);
        assert_eq!((again.channel, again.event), (message.channel, message.event));
    }
    if let Err(told) = fuzzing::message_of_hub(data) {
        assert!(!told.chars().any(char::is_control), "{told:?}");
    }
}
