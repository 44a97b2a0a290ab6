//! TLS 1.3 with raw public keys. Which key the other side holds is all that is asked of it.

use crate::LinkError;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use steeldb_wire::auth::{PublicKey, SecretKey};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use zeroize::Zeroizing;

/// TLS reads the socket in pieces of 4 KiB; the buffer below it makes them few system calls.
pub(crate) type Stream = TlsStream<BufReader<TcpStream>>;

const SOCKET_READ_BYTES: usize = 64 * 1024;

/// Named in the handshake (ALPN), so that nodes of different protocol versions refuse each other at once.
const PROTOCOL: &[u8] = b"steeldb/1";

/// SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// OneAsymmetricKey of an Ed25519 key up to its seed (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Dials as the node with `own` key; accepts exactly `expected` on the other side.
///
/// # Errors
/// When TLS refuses the key.
pub(crate) fn connector(own: &SecretKey, expected: PublicKey) -> Result<TlsConnector, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let identity = identity(own)?;
    let known = Arc::new(RwLock::new(BTreeSet::from([expected])));
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KnownKeys::new(known, provider)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity)));
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Keys that are accepted; may change at any time, for connections that come later.
pub(crate) type Known = Arc<RwLock<BTreeSet<PublicKey>>>;

/// Accepts, as the node with `own` key, whoever holds one of the `known` keys; with `any`, whoever holds a key.
///
/// # Errors
/// When TLS refuses the key.
pub(crate) fn acceptor(own: &SecretKey, known: Known, any: bool) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let identity = identity(own)?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(KnownKeys { any, ..KnownKeys::new(known, provider) }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The dialler's half of the handshake.
///
/// # Errors
/// What the network or TLS says; a wrong key among it.
pub(crate) async fn connect(connector: &TlsConnector, tcp: TcpStream) -> Result<Stream, LinkError> {
    // The name is neither sent nor compared: the key alone counts.
    let name = ServerName::try_from("steeldb").map_err(std::io::Error::other)?;
    let stream = connector.connect(name, BufReader::with_capacity(SOCKET_READ_BYTES, tcp)).await?;
    Ok(stream.into())
}

/// The listener's half of the handshake, and whose key the dialler holds.
///
/// # Errors
/// What the network or TLS says; an unknown key among it.
pub(crate) async fn accept(acceptor: &TlsAcceptor, tcp: TcpStream) -> Result<(Stream, PublicKey), LinkError> {
    let stream = acceptor.accept(BufReader::with_capacity(SOCKET_READ_BYTES, tcp)).await?;
    let presented = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
    let key =
        presented.and_then(|spki| key_of(spki)).ok_or_else(|| std::io::Error::other("no key presented"))?;
    Ok((stream.into(), key))
}

fn identity(own: &SecretKey) -> Result<Arc<CertifiedKey>, Error> {
    let mut pkcs8 = Zeroizing::new(PKCS8_PREFIX.to_vec());
    pkcs8.extend_from_slice(own.to_seed().as_slice());
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
    let spki = [&SPKI_PREFIX[..], &own.public().0].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

fn key_of(spki: &[u8]) -> Option<PublicKey> {
    spki.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok()).map(PublicKey)
}

/// Accepts raw public keys of a set, or any, on either side.
#[derive(Debug)]
struct KnownKeys {
    keys: Known,
    any: bool,
    provider: Arc<CryptoProvider>,
}

impl KnownKeys {
    fn new(keys: Known, provider: Arc<CryptoProvider>) -> KnownKeys {
        KnownKeys { keys, any: false, provider }
    }

    fn contains(&self, key: &PublicKey) -> bool {
        // Whole whatever a thread that panicked left behind.
        self.any || self.keys.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    fn check(&self, end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        match key_of(end_entity) {
            Some(key) if others.is_empty() && self.contains(&key) => Ok(()),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, signed, algorithms)
    }
}

fn not_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for KnownKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KnownKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
