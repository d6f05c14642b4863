"""In charge of bots that speak Twilio's Media Streams: the call is the carrier's side of their WebSocket."""
