"""gRPC over any connection, in both roles.

    faces          buildkit/  cri/
    ------------------------------------------------------------------------------------------------
    calls          server.py   Server, on(), ServerCall           client.py   Client, ClientCall
                         what a method is: methods.py             how a call ends: status.py
                         metadata and deadlines: metadata.py
    messages       messages.py   5 bytes of prefix and a protobuf message, limits, gzip
    streams        streams.py    bytes of one call, with a window that grows while it is read
    connection     connection.py an asyncio protocol around h2 (machine.py); frames.py splits what arrives
    ------------------------------------------------------------------------------------------------
    transports     an asyncio transport of any kind:
                     a listener's own connection      detect.py tells HTTP/2 from HTTP/1.1
                     a connection taken over from HTTP/1.1, with the bytes that came along
                     a tunnel through a gRPC stream   tunnel.py (of which there may be one within another)

A method is a value: its path, its kind and the types of its messages. A server is a table of methods and
their handlers; a client takes a method and a message:

    class Greeter:
        Hello = Unary("/demo.Greeter/Hello", HelloRequest, HelloReply)
        Watch = ServerStream("/demo.Greeter/Watch", WatchRequest, Change)

    async def hello(request: HelloRequest, call: ServerCall[HelloRequest, HelloReply]) -> HelloReply: ...
    async def watch(request: WatchRequest, call: ServerCall[WatchRequest, Change]) -> None:
        await call.send(Change(...))

    server = Server([on(Greeter.Hello, hello), on(Greeter.Watch, watch)])
    connection = server.serve(transport, early)            # or server.protocol as a listener's factory
    await connection.wait_closed()

    client = Client.over(transport)
    reply = await client.unary(Greeter.Hello, HelloRequest(), timeout=5)
    async with client.stream(Greeter.Watch) as call:
        await call.send(WatchRequest(), end=True)
        async for change in call: ...

``h2`` implements HTTP/2: HPACK, settings, the state of streams, the windows for sending. ``connection.py``
handles three things itself. Bytes of DATA frames go from the read buffer directly to their stream, because
``h2`` would copy them several times. After GOAWAY open streams may end normally, which ``h2`` does not allow.
Frames without payload (PING, SETTINGS, RST_STREAM and others) are counted, so that a flood can be detected.

The room is imported when the first client connects with HTTP/2; only ``detect`` is imported before. All of it
runs on the event loop; nothing here is safe for threads.
"""
