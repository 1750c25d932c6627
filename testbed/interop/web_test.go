package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
)

// webCall makes a call as a browser does, by gRPC-Web over HTTP/1.1 (PROTOCOL-WEB.md), and
// returns the messages and the trailers.
func webCall(t *testing.T, addr, method string, text bool, request proto.Message) (messages [][]byte, trailers string) {
	t.Helper()
	body, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	kind := "application/grpc-web+proto"
	if text {
		kind = "application/grpc-web-text+proto"
		body = []byte(base64.StdEncoding.EncodeToString(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/grpc.testing.TestService/"+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("X-Grpc-Web", "1")
	res, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/grpc-web") {
		t.Fatalf("%s %v", res.Status, res.Header)
	}
	all, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text { // in pieces, each with its padding
		var plain []byte
		for ; len(all) >= 4; all = all[4:] {
			if plain, err = base64.StdEncoding.AppendDecode(plain, all[:4]); err != nil {
				t.Fatal(err)
			}
		}
		if len(all) > 0 {
			t.Fatalf("base64 breaks off: %q", all)
		}
		all = plain
	}
	if len(all) == 0 { // a call that failed at once says so in the head
		return nil, fmt.Sprintf("grpc-status: %s\r\n", res.Header.Get("Grpc-Status"))
	}
	for len(all) > 0 {
		if len(all) < 5 || uint32(len(all)-5) < binary.BigEndian.Uint32(all[1:]) {
			t.Fatalf("a frame breaks off: %q", all)
		}
		flag, n := all[0], 5+binary.BigEndian.Uint32(all[1:])
		switch p := all[5:n]; {
		case trailers != "":
			t.Fatalf("a frame behind the trailers: %q", p)
		case flag == 0x80:
			trailers = string(p)
		case flag == 0:
			messages = append(messages, p)
		default:
			t.Fatalf("a frame with flags %#x", flag)
		}
		all = all[n:]
	}
	return messages, trailers
}

// web goes through what gRPC-Web can do: calls of one message, and streams of answers.
func web(t *testing.T, addr string) {
	t.Helper()
	for _, text := range []bool{false, true} {
		t.Run(fmt.Sprint("text ", text), func(t *testing.T) {
			if m, trailers := webCall(t, addr, "EmptyCall", text, &grpc_testing.Empty{}); len(m) != 1 || len(m[0]) != 0 || !strings.Contains(trailers, "grpc-status: 0\r\n") {
				t.Errorf("an empty call: %q %q", m, trailers)
			}
			const size = 314159
			m, trailers := webCall(t, addr, "UnaryCall", text, &grpc_testing.SimpleRequest{ResponseSize: size, Payload: &grpc_testing.Payload{Body: make([]byte, 271828)}})
			var answer grpc_testing.SimpleResponse
			if len(m) != 1 || proto.Unmarshal(m[0], &answer) != nil || len(answer.GetPayload().GetBody()) != size || !strings.Contains(trailers, "grpc-status: 0\r\n") {
				t.Errorf("a large call: %d messages, %d bytes, %q", len(m), len(answer.GetPayload().GetBody()), trailers)
			}
			if m, trailers := webCall(t, addr, "UnaryCall", text, &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: 2, Message: "test status message"}}); len(m) != 0 || !strings.Contains(trailers, "grpc-status: 2\r\n") {
				t.Errorf("a call that fails: %q %q", m, trailers)
			}
			sizes := []int32{31415, 9, 2653, 58979}
			stream := &grpc_testing.StreamingOutputCallRequest{}
			for _, n := range sizes {
				stream.ResponseParameters = append(stream.ResponseParameters, &grpc_testing.ResponseParameters{Size: n})
			}
			m, trailers = webCall(t, addr, "StreamingOutputCall", text, stream)
			if len(m) != len(sizes) || !strings.Contains(trailers, "grpc-status: 0\r\n") {
				t.Fatalf("a stream: %d messages, %q", len(m), trailers)
			}
			for i, n := range sizes {
				var answer grpc_testing.StreamingOutputCallResponse
				if err := proto.Unmarshal(m[i], &answer); err != nil || len(answer.GetPayload().GetBody()) != int(n) {
					t.Errorf("message %d: %d bytes, %v, want %d", i, len(answer.GetPayload().GetBody()), err, n)
				}
			}
			if m, trailers := webCall(t, addr, "Nothing", text, &grpc_testing.Empty{}); len(m) != 0 || !strings.Contains(trailers, "grpc-status: 12\r\n") {
				t.Errorf("a method that is not there: %q %q", m, trailers)
			}
		})
	}
}
