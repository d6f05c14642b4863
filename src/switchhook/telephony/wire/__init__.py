"""In charge of the bytes of telephony: SIP, SDP, RTP, RTCP and DTMF, as plain functions and machines.

Standard library only: no socket, no clock, no await, no other room. Time is an argument.
"""
