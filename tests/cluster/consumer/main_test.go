package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const key = "value-one-for-tests"

func TestCallsAreCountedByStatusAndTheKeyIsSentButNeverShown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/v1/auth/me" || request.Header.Get("x-api-key") != key {
			writer.WriteHeader(http.StatusUnauthorized)
		}
	}))
	sent := key
	c := newConsumer(server.URL+"/v1/", func() (string, error) { return sent, nil })
	var shown []string
	shown = append(shown, c.call(t.Context()))
	sent = key + "-revoked"
	shown = append(shown, c.call(t.Context()))
	sent = key + "\n" // which no header can hold
	shown = append(shown, c.call(t.Context()))
	sent = key
	server.Close()
	shown = append(shown, c.call(t.Context()))

	recorder := httptest.NewRecorder()
	c.handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/counts", nil))
	var counted counts
	if err := json.Unmarshal(recorder.Body.Bytes(), &counted); err != nil {
		t.Fatal(err)
	}
	if counted.Calls != 4 || counted.Failures != 3 || counted.Statuses["200"] != 1 || counted.Statuses["401"] != 1 || counted.Statuses["none"] != 2 || counted.Last != "none" {
		t.Errorf("counted: %+v", counted)
	}
	if all := strings.Join(shown, "\n") + recorder.Body.String(); strings.Contains(all, key) {
		t.Errorf("the key is shown: %s", all)
	}
}

type answering func(*http.Request) (*http.Response, error)

func (answer answering) RoundTrip(request *http.Request) (*http.Response, error) {
	return answer(request)
}

func TestACallThatWasAnsweredCountsAlsoWhereItIsTheLastOne(t *testing.T) {
	c := newConsumer("http://bags.test", keySource(""))
	ctx, stop := context.WithCancel(t.Context())
	c.client.Transport = answering(func(*http.Request) (*http.Response, error) {
		stop()
		return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
	})
	if said := c.call(ctx); said != "401" || c.counted.Failures != 1 {
		t.Errorf("said %s, counted %+v", said, c.counted)
	}
	if said := c.call(ctx); said != "401" {
		t.Errorf("said %s", said)
	}
	c.client.Transport = answering(func(*http.Request) (*http.Response, error) { return nil, context.Canceled })
	if said := c.call(ctx); said != "stopped" || c.counted.Calls != 2 {
		t.Errorf("said %s, counted %+v", said, c.counted)
	}
}

func TestAKeyFileIsReadForEachCall(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	read := keySource(file)
	if _, err := read(); err == nil {
		t.Error("a missing file is no error")
	}
	for _, value := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(); err != nil || got != value {
			t.Errorf("read %q, %v", got, err)
		}
	}
}
