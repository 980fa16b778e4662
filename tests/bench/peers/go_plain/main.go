// A worker written by hand in Go: franz-go, net/http with a transport tuned for one host, N goroutines.
//
// At least once: records finish in any order, a partition's mark moves over what is finished without a gap, and marks are
// committed every second. A failed call is repeated for ever. It keeps no order within a key.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	retryDelay  = 500 * time.Millisecond
	pollRecords = 500
)

type spoken struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type question struct {
	Model     string   `json:"model"`
	Messages  []spoken `json:"messages"`
	MaxTokens int      `json:"max_tokens"`
}

type completion struct {
	Choices []struct {
		Message spoken `json:"message"`
	} `json:"choices"`
}

type input struct {
	ID   int64  `json:"id"`
	Text string `json:"text"`
}

type output struct {
	ID     int64  `json:"id"`
	Result string `json:"result"`
}

// partition keeps the records of one partition in the order in which they were fetched.
type partition struct {
	mu       sync.Mutex
	fetched  []*kgo.Record
	finished map[int64]bool
}

func (p *partition) start(record *kgo.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetched = append(p.fetched, record)
}

// finish returns the last record before the first unfinished one, nil when that has not moved.
func (p *partition) finish(record *kgo.Record) (mark *kgo.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished[record.Offset] = true
	for len(p.fetched) > 0 && p.finished[p.fetched[0].Offset] {
		mark = p.fetched[0]
		delete(p.finished, mark.Offset)
		p.fetched[0] = nil
		p.fetched = p.fetched[1:]
	}
	return mark
}

type partitions struct {
	mu    sync.Mutex
	owned map[int32]*partition
}

func (ps *partitions) of(record *kgo.Record) *partition {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	found := ps.owned[record.Partition]
	if found == nil {
		found = &partition{finished: map[int64]bool{}}
		ps.owned[record.Partition] = found
	}
	return found
}

func (ps *partitions) drop(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, numbers := range gone {
		for _, number := range numbers {
			delete(ps.owned, number)
		}
	}
}

type job struct {
	record *kgo.Record
	owner  *partition
}

type worker struct {
	kafka     *kgo.Client
	http      *http.Client
	url       string
	model     string
	topicOut  string
	maxTokens int
}

func (w *worker) run(ctx context.Context, jobs <-chan job) {
	for each := range jobs {
		var in input
		if err := json.Unmarshal(each.record.Value, &in); err != nil {
			log.Fatalf("no JSON at %d/%d: %v", each.record.Partition, each.record.Offset, err)
		}
		result, err := w.ask(ctx, in.Text)
		if err != nil {
			return // stopping
		}
		value, err := json.Marshal(output{in.ID, result})
		if err != nil {
			log.Fatal(err)
		}
		// A callback: waiting for the confirmation here would hold the slot for the linger.
		w.kafka.Produce(context.Background(), &kgo.Record{Topic: w.topicOut, Key: each.record.Key, Value: value},
			func(_ *kgo.Record, err error) {
				if err != nil {
					log.Fatalf("produce: %v", err)
				}
				if mark := each.owner.finish(each.record); mark != nil {
					w.kafka.MarkCommitRecords(mark)
				}
			})
	}
}

// ask repeats the call until it succeeds; its only error is that of ctx.
func (w *worker) ask(ctx context.Context, text string) (string, error) {
	body, err := json.Marshal(question{w.model, []spoken{{"user", text}}, w.maxTokens})
	if err != nil {
		log.Fatal(err)
	}
	for {
		result, err := w.call(ctx, body)
		if err == nil {
			return result, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(retryDelay):
		}
	}
}

func (w *worker) call(ctx context.Context, body []byte) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := w.http.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP %d", response.StatusCode)
	}
	var found completion
	if err := json.Unmarshal(answer, &found); err != nil {
		return "", err
	}
	if len(found.Choices) == 0 {
		return "", errors.New("no choices")
	}
	return found.Choices[0].Message.Content, nil
}

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return value
}

// httpClient keeps a connection per slot; with STOCK_HTTP=1 it is Go's default, which keeps two.
func httpClient(slots int) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if os.Getenv("STOCK_HTTP") != "1" {
		transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, slots
	}
	return &http.Client{Transport: transport, Timeout: time.Duration(number("TIMEOUT_S")) * time.Second}
}

func main() {
	slots, owned := number("N"), &partitions{owned: map[int32]*partition{}}
	options := []kgo.Opt{
		kgo.SeedBrokers(os.Getenv("BOOTSTRAP")), kgo.ConsumerGroup(os.Getenv("GROUP")),
		kgo.ConsumeTopics(os.Getenv("TOPIC_IN")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Second), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(owned.drop), kgo.OnPartitionsLost(owned.drop),
		kgo.ProducerLinger(5 * time.Millisecond),
	}
	if instance := os.Getenv("INSTANCE"); instance != "" {
		options = append(options, kgo.InstanceID(instance))
	}
	kafka, err := kgo.NewClient(options...)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &worker{
		kafka: kafka, http: httpClient(slots), url: os.Getenv("URL"), model: os.Getenv("MODEL"),
		topicOut: os.Getenv("TOPIC_OUT"), maxTokens: number("MAX_TOKENS"),
	}
	jobs := make(chan job)
	for range slots {
		go w.run(ctx, jobs)
	}
	for ctx.Err() == nil {
		kafka.PollRecords(ctx, pollRecords).EachRecord(func(record *kgo.Record) {
			owner := owned.of(record)
			owner.start(record)
			select {
			case jobs <- job{record, owner}:
			case <-ctx.Done():
			}
		})
		kafka.AllowRebalance()
	}
	if err := kafka.Flush(context.Background()); err != nil {
		log.Print(err)
	}
	if err := kafka.CommitMarkedOffsets(context.Background()); err != nil {
		log.Print(err)
	}
	kafka.Close()
}
