"""Offer and answer (RFC 3264) for one telephone-quality audio stream: what both sides can do, and where it goes.

G.711 and RFC 4733 digits over plain RTP or, by the terms of `SrtpMode`, over SRTP with keys in SDP (RFC 4568). Everything else in
an offer is refused line by line, and an offer with nothing we can take raises `NotAcceptable`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace

from switchhook.telephony.wire.sdes import SrtpKey, SrtpKeys, SrtpMode, read_key, write_key
from switchhook.telephony.wire.sdp import (
    STATIC_PAYLOADS,
    Attribute,
    Attributes,
    Crypto,
    MediaDescription,
    MediaDirection,
    Origin,
    RtpMap,
    SessionDescription,
)

DTMF_ENCODING = "TELEPHONE-EVENT"
DTMF_PAYLOAD_TYPE = 101
"""What we offer; an answer keeps the offerer's number."""
DTMF_EVENTS = "0-16"
"""The sixteen digits and flash (RFC 4733 §3.2)."""
RATE_HZ = 8000
PTIME_MS = 20

# AVPF differs from AVP in when feedback may be sent, which we never do (RFC 4585 §3.1).
_PLAIN = frozenset({"RTP/AVP", "RTP/AVPF"})
_SECURE = frozenset({"RTP/SAVP", "RTP/SAVPF"})


class NotAcceptable(Exception):
    """Nothing in the description can be used; says why."""

    status_hint = 488


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """Our side of the stream."""

    host: str
    """Address that the peer sends to."""
    port: int
    encodings: tuple[str, ...] = ("PCMU", "PCMA")
    """What we take, preferred first."""
    prefer_ours: bool = False
    """Choose by our order; otherwise the offerer's order wins (RFC 3264 §6.1)."""
    direction: MediaDirection = MediaDirection.SENDRECV
    """What we are willing to do: sendonly or inactive puts the peer on hold."""
    session_id: int = 1
    """Stays the same for the whole dialog (RFC 8866 §5.2)."""
    version: int = 1
    """Rises by one whenever our description changes; see `versioned`."""
    srtp: SrtpMode = SrtpMode.OFF
    srtp_keys: tuple[SrtpKey, ...] = ()
    """Our key for each suite, from `sdes.fresh_keys`; they stay the same for the whole dialog. Needed unless `srtp` is off."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on."""

    remote_host: str
    """An IP address; unspecified (0.0.0.0) when the peer is on hold the old way, and then `we_send` is false."""
    remote_port: int
    remote_rtcp_port: int
    encoding: str
    """`PCMU` or `PCMA`."""
    payload_type: int
    dtmf_payload_type: int | None
    ptime_ms: int
    """Packet length the peer wants; 20 if it does not say."""
    we_send: bool
    we_receive: bool
    srtp: SrtpKeys | None = None
    """None: plain RTP."""


def answer(offer: SessionDescription, local: LocalMedia) -> tuple[SessionDescription, Negotiated]:
    """Answer an offer: the first audio line we can take is taken, every other line is refused with port 0 (RFC 3264 §6).

    A line with SRTP keys goes before one without, unless SRTP is off. Keys on a plain RTP/AVP line are an offer to encrypt, as
    many write it: they are taken, and the line keeps its profile.

    Raises:
        NotAcceptable: no line can be taken.
    """
    why = "no audio"
    for at in _candidates(offer, local.srtp):
        media = offer.media[at]
        try:
            codec, dtmf = _choose(media, local)
            crypto, keys = _secure(media, local)
            host = _address(offer, media)
        except NotAcceptable as error:
            why = str(error)
            continue
        sends, receives = _mirror(offer, media, host, local.direction)
        taken = _audio(local.port, media.protocol, [codec], dtmf, MediaDirection.of(sends, receives), crypto)
        lines = [_refused(line) for line in offer.media]
        lines[at] = taken
        return _session(local, tuple(lines)), _negotiated(media, host, codec, dtmf, (sends, receives), keys)
    raise NotAcceptable(why)


def offer(local: LocalMedia, current: SessionDescription | None = None) -> SessionDescription:
    """Make an offer: the first of a dialog, or with `current` (our last description) a later one.

    SRTP that is required is offered as RTP/SAVP. SRTP that is only offered goes out as RTP/AVP with keys: RFC 4568 knows nothing
    of it, but a peer that cannot encrypt passes the keys over and answers, where it would refuse RTP/SAVP, or a second line; most
    of those that can encrypt take them. A later offer keeps every line in its place, the payload type of digits (RFC 3264 §8) and
    the keys (RFC 4568 §7.1.4).
    """
    codecs = [rtp_map for name in local.encodings for rtp_map in STATIC_PAYLOADS if rtp_map.encoding == name]
    if current is None:
        protocol = "RTP/SAVP" if local.srtp is SrtpMode.REQUIRED else "RTP/AVP"
        keys = () if local.srtp is SrtpMode.OFF else local.srtp_keys
        crypto = [write_key(tag, key) for tag, key in enumerate(keys, 1)]
        return _session(local, (_audio(local.port, protocol, codecs, DTMF_PAYLOAD_TYPE, local.direction, crypto),))
    at = _active(current)
    before = current.media[at]
    dtmf = _dtmf(before)
    dtmf = DTMF_PAYLOAD_TYPE if dtmf is None else dtmf
    line = _audio(local.port, before.protocol, codecs, dtmf, local.direction, before.crypto)
    return _session(local, (*current.media[:at], line, *current.media[at + 1 :]))


def accept_answer(offered: SessionDescription, answered: SessionDescription) -> Negotiated:
    """Read the answer to our offer. An answer without keys to keys on a plain line means plain RTP.

    Raises:
        NotAcceptable: the stream was refused, or the answer is none to this offer.
    """
    at = _active(offered)
    if at >= len(answered.media):
        raise NotAcceptable("the answer lacks a line")
    ours, theirs = offered.media[at], answered.media[at]
    if theirs.port == 0:
        raise NotAcceptable("the stream was refused")
    encodings = tuple(rtp_map.encoding for rtp_map in ours.rtp_maps())
    codec, dtmf = _choose(theirs, LocalMedia("", 0, encodings))
    keys = _accepted_keys(ours, theirs)
    host = _address(answered, theirs)
    flows = _mirror(answered, theirs, host, offered.direction_of(ours))
    return _negotiated(theirs, host, codec, dtmf, flows, keys)


def versioned(draft: SessionDescription, previous: SessionDescription | None) -> SessionDescription:
    """Give a draft its version: that of our last description if they say the same, else one more (RFC 3264 §8)."""
    if previous is None:
        return draft
    same = replace(draft, origin=replace(draft.origin, version=previous.origin.version))
    if same == previous:
        return same
    return replace(draft, origin=replace(draft.origin, version=previous.origin.version + 1))


def _candidates(offer: SessionDescription, srtp: SrtpMode) -> list[int]:
    """Places of the audio lines that are not refused, those to be tried first at the front."""
    found = [at for at, media in enumerate(offer.media) if media.kind == "audio" and media.port != 0]
    return found if srtp is SrtpMode.OFF else sorted(found, key=lambda at: not offer.media[at].crypto)


def _secure(media: MediaDescription, local: LocalMedia) -> tuple[list[Crypto], SrtpKeys | None]:
    """What to answer to the keys of an offered line, the offerer's order first (RFC 4568 §5.1.2), and what comes of it."""
    if local.srtp is SrtpMode.OFF:
        if _is_secure(media):
            raise NotAcceptable(f"media over {media.protocol}: SRTP is off on this trunk")
        return [], None
    mine = {key.suite: key for key in local.srtp_keys}
    for crypto in media.crypto:
        theirs = read_key(crypto)
        if theirs is not None and theirs.suite in mine:
            ours = mine[theirs.suite]
            return [write_key(crypto.tag, ours)], SrtpKeys(ours, theirs)
    if _is_secure(media):
        raise NotAcceptable("no SRTP suite in common")
    if local.srtp is SrtpMode.REQUIRED:
        raise NotAcceptable("this trunk requires SRTP")
    return [], None


def _accepted_keys(ours: MediaDescription, theirs: MediaDescription) -> SrtpKeys | None:
    """The keys that an answer chose. Each suite has one key of ours, so that a wrong tag in the answer does no harm."""
    mine = {key.suite: key for key in map(read_key, ours.crypto) if key is not None}
    for crypto in theirs.crypto:
        key = read_key(crypto)
        if key is not None and key.suite in mine:
            return SrtpKeys(mine[key.suite], key)
    if _is_secure(ours) or _is_secure(theirs) or (mine and theirs.crypto):
        raise NotAcceptable("the answer has no SRTP key for a suite that was offered")
    return None


def _is_secure(media: MediaDescription) -> bool:
    return media.protocol.upper() in _SECURE


def _choose(media: MediaDescription, local: LocalMedia) -> tuple[RtpMap, int | None]:
    """The codec to use, and the payload type of digits."""
    if media.protocol.upper() not in _PLAIN | _SECURE:
        raise NotAcceptable(f"media over {media.protocol}")
    known = [
        replace(rtp_map, encoding=rtp_map.encoding.upper())
        for rtp_map in media.rtp_maps()
        if rtp_map.encoding.upper() in local.encodings and rtp_map.rate_hz == RATE_HZ and rtp_map.channels == 1
    ]
    if not known:
        raise NotAcceptable("no common codec")
    if local.prefer_ours:
        known.sort(key=lambda rtp_map: local.encodings.index(rtp_map.encoding))
    return known[0], _dtmf(media)


def _dtmf(media: MediaDescription) -> int | None:
    # Some offer digits at 48,000 Hz too, for a wide-band codec; ours go with the codec's rate (RFC 4733 §2.1).
    for rtp_map in media.rtp_maps():
        if rtp_map.encoding.upper() == DTMF_ENCODING and rtp_map.rate_hz == RATE_HZ:
            return rtp_map.payload_type
    return None


def _address(session: SessionDescription, media: MediaDescription) -> str:
    text = session.address_of(media)
    if text is None:
        raise NotAcceptable("no c= line")
    try:
        # A host name would have to be looked up in the middle of a call; nobody sends one.
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise NotAcceptable("the c= line has no IP address") from None


def _mirror(session: SessionDescription, media: MediaDescription, host: str, ours: MediaDirection) -> tuple[bool, bool]:
    """Whether we send, and whether we receive."""
    theirs = session.direction_of(media)
    # 0.0.0.0 is hold as RFC 2543 had it: nothing is to be sent there (RFC 3264 §8.4).
    reachable = not ipaddress.ip_address(host).is_unspecified
    return ours.sends and theirs.receives and reachable, ours.receives and theirs.sends


def _negotiated(
    media: MediaDescription, host: str, codec: RtpMap, dtmf: int | None, flows: tuple[bool, bool], srtp: SrtpKeys | None
) -> Negotiated:
    return Negotiated(
        remote_host=host,
        remote_port=media.port,
        remote_rtcp_port=_rtcp_port(media),
        encoding=codec.encoding,
        payload_type=codec.payload_type,
        dtmf_payload_type=dtmf,
        ptime_ms=media.ptime_ms or PTIME_MS,
        we_send=flows[0],
        we_receive=flows[1],
        srtp=srtp,
    )


def _rtcp_port(media: MediaDescription) -> int:
    # RFC 3605: `a=rtcp:53020`, perhaps with an address; without it the next port (RFC 3550 §11).
    words = (media.get("rtcp") or "").split()
    if words and words[0].isascii() and words[0].isdigit() and len(words[0]) <= 5 and 0 < int(words[0]) <= 65535:
        return int(words[0])
    return min(media.port + 1, 65535)


def _audio(
    port: int, protocol: str, codecs: list[RtpMap], dtmf: int | None, direction: MediaDirection, crypto: Iterable[Crypto]
) -> MediaDescription:
    maps = [*codecs, *([] if dtmf is None else [RtpMap(dtmf, "telephone-event", RATE_HZ)])]
    attributes: Attributes = tuple(Attribute("rtpmap", str(rtp_map)) for rtp_map in maps)
    if dtmf is not None:
        attributes += (Attribute("fmtp", f"{dtmf} {DTMF_EVENTS}"),)
    attributes += (Attribute("ptime", str(PTIME_MS)), Attribute(direction.value))
    attributes += tuple(Attribute("crypto", str(line)) for line in crypto)
    return MediaDescription("audio", port, protocol, tuple(str(rtp_map.payload_type) for rtp_map in maps), attributes=attributes)


def _refused(media: MediaDescription) -> MediaDescription:
    # A line needs a format even so; which one means nothing (RFC 3264 §6).
    return MediaDescription(media.kind, 0, media.protocol, media.formats[:1] or ("0",))


def _session(local: LocalMedia, media: tuple[MediaDescription, ...]) -> SessionDescription:
    return SessionDescription(Origin(local.session_id, local.version, local.host), media, connection=local.host)


def _active(ours: SessionDescription) -> int:
    return next(at for at, media in enumerate(ours.media) if media.kind == "audio" and media.port != 0)
