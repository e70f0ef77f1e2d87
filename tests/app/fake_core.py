# SPDX-License-Identifier: Apache-2.0
"""A core for tests of the tool: listens on state/control.sock and answers by a script."""

import json
import os
import socket
import struct
import threading


class FakeCore:
    """answers: command to a list of frames, or a function (arguments) to such a list; "command@node"
    for one member of a cluster. A frame is an object, or bytes as they are, or None: the connection
    is closed. members: rows of its node list; without any it is alone."""

    def __init__(self, state, answers, members=()):
        self.answers = answers
        self.members = [{"row": member} for member in members]
        self.requests = []
        os.makedirs(state, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        # By way of a descriptor, for the path may be longer than an address can be.
        directory = os.open(state, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{directory}/control.sock")
        os.close(directory)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.attend, args=(connection,), daemon=True).start()

    def attend(self, connection):
        with connection:
            try:
                self.converse(connection)
            except OSError:
                pass

    def answer_to(self, request):
        if request["arguments"].get("alone"):
            return [*self.members, end()]
        self.requests.append((request["command"], request["arguments"]))
        of_node = f"{request['command']}@{request.get('node')}"
        return self.answers.get(of_node) or self.answers[request["command"]]

    def converse(self, connection):
        while True:
            request = self.receive(connection)
            if request is None:
                return
            answer = self.answer_to(request)
            for frame in answer(request["arguments"]) if callable(answer) else answer:
                if frame is None:
                    return
                if isinstance(frame, bytes):
                    connection.sendall(frame)
                else:
                    text = json.dumps(frame).encode()
                    connection.sendall(struct.pack(">I", len(text)) + text)

    @staticmethod
    def receive(connection):
        def exactly(count):
            data = b""
            while len(data) < count:
                more = connection.recv(count - len(data))
                if not more:
                    return None
                data += more
            return data
        head = exactly(4)
        if head is None:
            return None
        (length,) = struct.unpack(">I", head)
        assert 2 <= length <= 1 << 20
        return json.loads(exactly(length))


def end(code=0, error=None):
    return {"end": {"exit": code} if error is None else {"exit": code, "error": error}}
