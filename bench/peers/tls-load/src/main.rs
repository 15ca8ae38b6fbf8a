//! A client of TLS and HTTP/2 that shakes hands as often as it can, or opens connections and leaves them idle.
//!
//! `tls-load handshakes ADDR SECONDS full|resumed` prints how many handshakes with a request each were made, and how
//! many of them were resumed. `tls-load hold ADDR COUNT http1|http2` makes a request on each connection, prints `ready`,
//! holds all until its input ends, and prints how many are open then. TLS 1.3 throughout; the certificate is believed.

use std::{
    env,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    StreamOwned,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};

type Stream = StreamOwned<ClientConnection, TcpStream>;
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELLO: &[u8] = b"Hello, World!";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Preface, empty SETTINGS, and a GET of `/` on stream 1.
const REQUEST2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x84\x41\x09localhost";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["handshakes", address, seconds, kind] => {
            let (made, resumed) =
                handshakes(address.parse()?, seconds.parse()?, kind == "resumed")?;
            println!("{made} {resumed}");
        }
        ["hold", address, count, protocol] => {
            hold(address.parse()?, count.parse()?, protocol == "http2")?
        }
        _ => {
            return Err(
                "usage: handshakes ADDR SECONDS full|resumed, or hold ADDR COUNT http1|http2"
                    .into(),
            );
        }
    }
    Ok(())
}

fn handshakes(address: SocketAddr, seconds: u64, resumes: bool) -> Result<(u64, u64)> {
    let config = config(b"http/1.1", resumes);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut made, mut resumed) = (0, 0);
    while Instant::now() < until {
        let mut stream = open(address, &config)?;
        // The tickets come with the answer.
        ask(&mut stream, REQUEST)?;
        made += 1;
        resumed += u64::from(stream.conn.handshake_kind() == Some(HandshakeKind::Resumed));
    }
    Ok((made, resumed))
}

fn hold(address: SocketAddr, count: usize, http2: bool) -> Result<()> {
    let config = config(if http2 { b"h2" } else { b"http/1.1" }, false);
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = open(address, &config)?;
        if http2 {
            ask(&mut stream, REQUEST2)?;
            stream.write_all(SETTINGS_ACK)?;
        } else {
            ask(&mut stream, REQUEST)?;
        }
        held.push(stream);
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    let open = held.iter_mut().filter(|stream| is_open(stream)).count();
    println!("{open}");
    Ok(())
}

fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Stream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let session = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
    Ok(StreamOwned::new(session, socket))
}

fn ask(stream: &mut Stream, request: &[u8]) -> Result<()> {
    stream.write_all(request)?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while !answer.windows(HELLO.len()).any(|window| window == HELLO) {
        match stream.read(&mut part)? {
            0 => return Err("closed without an answer".into()),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    Ok(())
}

/// Whether nothing but silence, or words that end nothing, is there to be read.
fn is_open(stream: &mut Stream) -> bool {
    if stream.sock.set_nonblocking(true).is_err() {
        return false;
    }
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

fn config(protocol: &[u8], resumes: bool) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider knows TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believing(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// Believes every certificate; signatures are checked, as every client does.
#[derive(Debug)]
struct Believing(Arc<CryptoProvider>);

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
