//! Files that can be used and files that cannot, and what a change of them
//! does.

use std::fs;
use std::path::PathBuf;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tempfile::TempDir;

use super::*;

fn issue() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate")
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a new file in the place of what was there: what is written within
    /// one tick of the system's clock, and is as long, could not be told apart.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).expect("written");
        fs::rename(self.path("new"), self.path(name)).expect("moved");
    }

    /// Writes both files, one after the other.
    fn put(&self, issued: &CertifiedKey<KeyPair>) {
        self.write("cert.pem", &issued.cert.pem());
        self.write("key.pem", &issued.signing_key.serialize_pem());
    }

    fn config(&self) -> config::Tls {
        config::Tls { cert: Some(self.path("cert.pem")), key: Some(self.path("key.pem")) }
    }

    /// What is said of the files, without the folder's name.
    #[track_caller]
    fn complaint(&self) -> String {
        let error = Tls::new(&self.config()).expect_err("these files are wrong");
        error.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The certificate that a client is shown who trusts `trusted`, if it trusts
/// what it is shown.
fn shown(tls: &Tls, trusted: &CertifiedKey<KeyPair>) -> Result<CertificateDer<'static>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut server = ServerConnection::new(tls.current().expect("TLS is on")).expect("a server");
    while client.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory");
        server.read_tls(&mut &bytes[..]).expect("memory");
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).expect("memory");
        client.read_tls(&mut &bytes[..]).expect("memory");
        client.process_new_packets()?;
    }
    let chain = client.peer_certificates().expect("a certificate");
    Ok(chain[0].clone().into_owned())
}

#[track_caller]
fn shows(tls: &Tls, issued: &CertifiedKey<KeyPair>) {
    assert_eq!(shown(tls, issued).expect("a handshake"), *issued.cert.der());
}

#[test]
fn a_certificate_and_its_key_are_shown_to_clients() {
    let (folder, issued) = (Folder::new(), issue());
    folder.put(&issued);
    shows(&Tls::new(&folder.config()).expect("good files"), &issued);
    let none = Tls::new(&config::Tls::default()).expect("no files");
    assert!(none.current().is_none());
}

// [running: tls] The message names the key, the file and what would be right.
#[test]
fn files_that_cannot_be_used_are_named_with_what_would_be_right() {
    let (folder, issued) = (Folder::new(), issue());
    let (cert, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let about_cert = |what: &str| {
        format!(
            "tls.cert = \"cert.pem\": {what}; expected a file with the server's certificate and \
             those between it and its root, as PEM: -----BEGIN CERTIFICATE-----"
        )
    };
    let about_key = |what: &str| {
        format!(
            "tls.key = \"key.pem\": {what}; expected a file with an RSA, ECDSA or Ed25519 private \
             key, as PEM and not encrypted: -----BEGIN PRIVATE KEY-----"
        )
    };
    let no_file = "cannot read it: No such file or directory (os error 2)";
    assert_eq!(folder.complaint(), about_cert(no_file));
    fs::create_dir(folder.0.path().join("cert.pem")).expect("a folder");
    assert_eq!(folder.complaint(), about_cert("cannot read it: it is not a file"));
    fs::remove_dir(folder.0.path().join("cert.pem")).expect("it is there");
    folder.write("cert.pem", &cert);
    assert_eq!(folder.complaint(), about_key(no_file));

    let check = |cert: &str, key: &str, complaint: String| {
        folder.write("cert.pem", cert);
        folder.write("key.pem", key);
        assert_eq!(folder.complaint(), complaint);
    };
    let (none, cut) = ("there is none in it", "not valid PEM: a section has no -----END line");
    check("", &key, about_cert(none));
    check("not a certificate", &key, about_cert(none));
    check(&key, &cert, about_cert(none));
    check(&cert, "", about_key(none));
    check(&cert, &cert, about_key(none));
    check(&cert, &key.replace("PRIVATE", "ENCRYPTED PRIVATE"), about_key(none));
    check(&cert[..cert.len() / 2], &key, about_cert(cut));
    check(&cert, &key[..key.len() / 2], about_key(cut));
    check(&cert.replace('M', "!"), &key, about_cert("not valid PEM: a section is not in base64"));
    let empty = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
    check(&empty("CERTIFICATE"), &key, about_cert("invalid peer certificate: BadEncoding"));
    let no_key = "unexpected error: failed to parse private key as RSA, ECDSA, or EdDSA";
    check(&cert, &empty("PRIVATE KEY"), about_key(no_key));
    check(
        &cert,
        &issue().signing_key.serialize_pem(),
        "tls.key = \"key.pem\": this is not the private key of the first certificate in \
         tls.cert = \"cert.pem\"; expected the one that it was made with"
            .to_owned(),
    );
}

#[test]
fn no_complaint_repeats_what_is_in_the_key() {
    let (folder, issued) = (Folder::new(), issue());
    let key = issued.signing_key.serialize_pem();
    let body = key.lines().nth(1).expect("a line of base64");
    for broken in [
        key.replace("-----END", "END"),
        key.replace(body, &format!("-----BEGIN {body}")),
        key.replace(body, &format!("{body}!")),
        key.replace(body, ""),
    ] {
        folder.write("cert.pem", &issued.cert.pem());
        folder.write("key.pem", &broken);
        let complaint = folder.complaint();
        assert!(!complaint.contains(&body[..16]), "{complaint}");
    }
}

// [running: tls] "reloaded when it changes"
#[test]
fn a_change_is_taken_over_once_the_files_stay_the_same_for_a_while() {
    let (folder, old, new) = (Folder::new(), issue(), issue());
    folder.put(&old);
    let tls = Tls::new(&folder.config()).expect("good files");
    let before = tls.current().expect("TLS is on");
    (0..3).for_each(|_| tls.look());
    assert!(Arc::ptr_eq(&before, &tls.current().expect("TLS is on")), "nothing has changed");
    folder.put(&new);
    tls.look();
    shows(&tls, &old);
    tls.look();
    shows(&tls, &new);
    assert!(shown(&tls, &old).is_err());
}

#[test]
fn a_certificate_whose_key_is_written_later_is_taken_over_with_it() {
    let (folder, old, new) = (Folder::new(), issue(), issue());
    folder.put(&old);
    let tls = Tls::new(&folder.config()).expect("good files");
    folder.write("cert.pem", &new.cert.pem());
    tls.look();
    folder.write("key.pem", &new.signing_key.serialize_pem());
    tls.look();
    shows(&tls, &old);
    tls.look();
    shows(&tls, &new);
}

#[test]
fn files_that_are_put_in_the_place_of_others_are_seen_whatever_their_times() {
    let (folder, old, new) = (Folder::new(), issue(), issue());
    folder.put(&old);
    let modified = |name| fs::metadata(folder.path(name)).expect("there").modified().expect("a time");
    let times = [("cert.pem", modified("cert.pem")), ("key.pem", modified("key.pem"))];
    let tls = Tls::new(&folder.config()).expect("good files");
    folder.write("new-cert.pem", &new.cert.pem());
    folder.write("new-key.pem", &new.signing_key.serialize_pem());
    for (name, time) in times {
        let file = folder.path(&format!("new-{name}"));
        fs::File::options().append(true).open(&file).expect("there").set_modified(time).expect("set");
        fs::rename(file, folder.path(name)).expect("moved");
    }
    (0..2).for_each(|_| tls.look());
    shows(&tls, &new);
}

#[test]
fn a_change_to_what_cannot_be_used_keeps_what_there_was_until_it_is_put_right() {
    let (folder, old, new) = (Folder::new(), issue(), issue());
    folder.put(&old);
    let tls = Tls::new(&folder.config()).expect("good files");
    let settle = || (0..3).for_each(|_| tls.look());
    folder.write("cert.pem", "broken");
    settle();
    shows(&tls, &old);
    fs::remove_file(folder.path("key.pem")).expect("there");
    settle();
    shows(&tls, &old);
    assert!(tls.take_over(&folder.config()).is_err());
    shows(&tls, &old);
    folder.put(&new);
    settle();
    shows(&tls, &new);
}

#[test]
fn a_reload_takes_other_files_and_no_files() {
    let (one, other) = (Folder::new(), Folder::new());
    let (old, new) = (issue(), issue());
    one.put(&old);
    other.put(&new);
    let tls = Tls::new(&one.config()).expect("good files");
    tls.take_over(&other.config()).expect("good files");
    shows(&tls, &new);
    one.put(&old);
    (0..3).for_each(|_| tls.look());
    shows(&tls, &new);
    tls.take_over(&config::Tls::default()).expect("no files");
    assert!(tls.current().is_none());
}

#[test]
fn what_is_needed_to_resume_is_with_the_client_and_ends_with_the_certificate() {
    let (folder, issued) = (Folder::new(), issue());
    folder.put(&issued);
    let tls = Tls::new(&folder.config()).expect("good files");
    let first = tls.current().expect("TLS is on");
    assert!(first.ticketer.enabled() && !first.session_storage.can_cache());
    let ticket = first.ticketer.encrypt(b"a session").expect("a ticket");
    assert!(first.ticketer.decrypt(&ticket).is_some());
    tls.take_over(&folder.config()).expect("good files");
    assert!(tls.current().expect("TLS is on").ticketer.decrypt(&ticket).is_none());
}
