// Command consumer is an application that uses a key of a Bags account, as small as it can be: it calls /auth/me again and again, logs the status of
// each answer, and counts. Tests read the counts to see that no call failed while keys rotated. It never prints the key.
//
// Environment: BAGS_BASE_URL; the key itself in BAGS_API_KEY, or in the file KEY_FILE, which is then read anew for each call, as an application with
// a mounted Secret does; INTERVAL between calls (default 1s); LISTEN (default :8080) for /healthz and /counts; CALLS, after which it ends as a job
// does (default: never); LINGER=true, and it goes on when it is asked to end, until it is killed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// counts is what GET /counts answers.
type counts struct {
	Calls    int            `json:"calls"`
	Failures int            `json:"failures"` // calls without an answer of 200
	Statuses map[string]int `json:"statuses"` // by status code; "none" where no answer came
	Last     string         `json:"last"`
}

type consumer struct {
	url     string
	key     func() (string, error)
	client  *http.Client
	mutex   sync.Mutex
	counted counts
}

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds | log.LUTC)
	log.SetOutput(os.Stdout)
	if err := run(); err != nil {
		log.Fatalf("failed: %v", err)
	}
}

func run() error {
	base := os.Getenv("BAGS_BASE_URL")
	if base == "" {
		return errors.New("BAGS_BASE_URL is not set")
	}
	interval, err := time.ParseDuration(environment("INTERVAL", "1s"))
	if err != nil || interval <= 0 {
		return errors.New("INTERVAL is not a duration such as 500ms")
	}
	calls, err := strconv.Atoi(environment("CALLS", "0"))
	if err != nil || calls < 0 {
		return errors.New("CALLS is not a number")
	}
	listener, err := net.Listen("tcp", environment("LISTEN", ":8080"))
	if err != nil {
		return err
	}
	c := newConsumer(base, keySource(os.Getenv("KEY_FILE")))
	go func() { log.Fatal(http.Serve(listener, c.handler())) }()

	ctx, stop := asked(os.Getenv("LINGER") == "true")
	defer stop()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for made := 1; ; made++ {
		log.Printf("GET /auth/me: %s", c.call(ctx))
		if made == calls {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// asked gives a context that ends when the program is asked to; never for one that lingers.
func asked(lingers bool) (context.Context, context.CancelFunc) {
	if !lingers {
		return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for range signals {
			log.Print("Asked to end, and goes on")
		}
	}()
	return context.WithCancel(context.Background())
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func keySource(file string) func() (string, error) {
	if file == "" {
		key := os.Getenv("BAGS_API_KEY")
		return func() (string, error) { return key, nil }
	}
	return func() (string, error) {
		content, err := os.ReadFile(file)
		return strings.TrimSpace(string(content)), err
	}
}

func newConsumer(base string, key func() (string, error)) *consumer {
	return &consumer{
		url: strings.TrimRight(base, "/") + "/auth/me",
		key: key,
		// Longer than a machine stands still that others use as well: such a call is late, and did not fail.
		client:  &http.Client{Timeout: time.Minute},
		counted: counts{Statuses: map[string]int{}},
	}
}

// call makes one call, counts it, and says in words that hold no key how it went.
func (c *consumer) call(ctx context.Context) string {
	status, detail := "none", ""
	code, err := c.ask(ctx)
	if err == nil {
		status = fmt.Sprint(code)
	} else {
		detail = ", " + err.Error()
	}
	// A call that was answered counts, also where its answer was the last one.
	if err != nil && ctx.Err() != nil {
		return "stopped"
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.counted.Calls++
	c.counted.Statuses[status]++
	c.counted.Last = status
	if code != http.StatusOK {
		c.counted.Failures++
	}
	return status + detail
}

func (c *consumer) ask(ctx context.Context) (int, error) {
	key, err := c.key()
	if err != nil {
		return 0, errors.New("the key file cannot be read")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return 0, errors.New("BAGS_BASE_URL is not an address")
	}
	request.Header.Set("x-api-key", key)
	response, err := c.client.Do(request)
	if err != nil {
		// Only the network's own errors are worth words, and certain not to quote a header.
		var network *net.OpError
		var failed *url.Error
		switch {
		case errors.As(err, &network):
			return 0, network
		case errors.As(err, &failed) && failed.Timeout():
			return 0, errors.New("no answer in time")
		default:
			return 0, errors.New("the call failed")
		}
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20)) // so that the connection is used again
	return response.StatusCode, nil
}

func (c *consumer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(writer http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(writer, "ok\n") })
	mux.HandleFunc("GET /counts", func(writer http.ResponseWriter, _ *http.Request) {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		writer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(writer).Encode(c.counted)
	})
	return mux
}
