// Redpanda Connect with the components that the bench's pipeline needs, and no others.
//
// HTTP_IDLE_CONNECTIONS lifts Go's limit of 2 idle connections per host on http.DefaultTransport: the `http` processor
// uses that transport and has no setting for it. Without the variable this is Connect as it ships.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"strconv"

	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	_ "github.com/redpanda-data/connect/v4/public/components/kafka"
)

func main() {
	if text := os.Getenv("HTTP_IDLE_CONNECTIONS"); text != "" {
		idle, err := strconv.Atoi(text)
		if err != nil {
			log.Fatalf("HTTP_IDLE_CONNECTIONS: %v", err)
		}
		transport := http.DefaultTransport.(*http.Transport)
		transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, idle
	}
	service.RunCLI(context.Background())
}
