import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.confluent.parallelconsumer.PCRetriableException;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import io.confluent.parallelconsumer.RecordContext;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * One record in, one chat completion, one record out, with Confluent's Parallel Consumer.
 *
 * <p>The produce flow of its README: a record is done when the broker has confirmed its answer. A failed call throws
 * PCRetriableException, which the library retries for ever after the delay of retryDelayProvider. With BREAKER=1 there
 * is a breaker as the README sketches one: while the endpoint is down, records fail without a call.
 */
public class Worker {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private static final URI URL = URI.create(System.getenv("URL"));
    private static final String OUTPUT = System.getenv("OUTPUT");
    private static final boolean BREAKER = "1".equals(System.getenv("BREAKER"));
    private static final Duration CALL_TIMEOUT = Duration.ofSeconds(5);
    private static final double FIRST_DELAY_S = 0.5;
    private static final double LONGEST_DELAY_S = 5;
    private static final long TRIAL_EVERY_NS = 1_000_000_000L;

    /** When the next trial may be made, by nanoTime; 0 while the endpoint is up. */
    private static final AtomicLong NEXT_TRIAL_NS = new AtomicLong();

    public static void main(String[] args) throws Exception {
        var options = ParallelConsumerOptions.<byte[], byte[]>builder()
                .consumer(new KafkaConsumer<>(consumerSettings()))
                .producer(new KafkaProducer<>(producerSettings()))
                .ordering(ProcessingOrder.valueOf(System.getenv("ORDER")))
                .maxConcurrency(Integer.parseInt(System.getenv("SLOTS")))
                .commitMode(CommitMode.PERIODIC_CONSUMER_SYNC) // "potentially fewer duplicates" than the default
                .commitInterval(Duration.ofMillis(200)) // default 5 s
                .retryDelayProvider(Worker::delay)
                .build();
        var processor = ParallelStreamProcessor.createEosStreamProcessor(options);
        Runtime.getRuntime().addShutdownHook(new Thread(processor::close));
        processor.subscribe(List.of(System.getenv("INPUT")));
        processor.pollAndProduce(context -> enrich(context.getSingleConsumerRecord()));
        Thread.currentThread().join();
    }

    /** The README's exponential back-off, with a ceiling: without one, a long outage would be followed by a long wait. */
    private static Duration delay(RecordContext<byte[], byte[]> failed) {
        double delayS = FIRST_DELAY_S * Math.pow(2, failed.getNumberOfFailedAttempts());
        return Duration.ofMillis((long) (1000 * Math.min(LONGEST_DELAY_S, delayS)));
    }

    private static ProducerRecord<byte[], byte[]> enrich(ConsumerRecord<byte[], byte[]> record) {
        if (BREAKER && !mayCall()) {
            throw new PCRetriableException("the endpoint is down");
        }
        byte[] answer;
        try {
            answer = ask(record.value());
            NEXT_TRIAL_NS.set(0);
        } catch (IOException failed) {
            NEXT_TRIAL_NS.set(System.nanoTime() + TRIAL_EVERY_NS);
            throw new PCRetriableException(failed);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
            throw new PCRetriableException(stopped);
        }
        var out = new ProducerRecord<>(OUTPUT, record.key(), answer);
        var source = record.topic() + "/" + record.partition() + "/" + record.offset();
        out.headers().add("__penstock.source", source.getBytes(StandardCharsets.UTF_8));
        return out;
    }

    /** Up, or the one caller that makes this second's trial. */
    private static boolean mayCall() {
        long next = NEXT_TRIAL_NS.get();
        long now = System.nanoTime();
        return next == 0 || (now - next >= 0 && NEXT_TRIAL_NS.compareAndSet(next, now + TRIAL_EVERY_NS));
    }

    private static byte[] ask(byte[] value) throws IOException, InterruptedException {
        var spoken = Map.of("role", "user", "content", new String(value, StandardCharsets.UTF_8));
        var body = JSON.writeValueAsBytes(Map.of("model", "simulated", "messages", List.of(spoken)));
        var request = HttpRequest.newBuilder(URL).timeout(CALL_TIMEOUT).header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(body)).build();
        var response = HTTP.send(request, HttpResponse.BodyHandlers.ofByteArray());
        if (response.statusCode() != 200) {
            throw new IOException("HTTP " + response.statusCode());
        }
        JsonNode answer = JSON.readTree(response.body()).at("/choices/0/message/content");
        return JSON.writeValueAsBytes(Map.of("answer", answer.asText()));
    }

    private static Map<String, Object> consumerSettings() {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        settings.put("group.id", System.getenv("GROUP"));
        settings.put("client.id", System.getenv("INSTANCE"));
        settings.put("session.timeout.ms", System.getenv("SESSION_TIMEOUT_MS"));
        settings.put("heartbeat.interval.ms", System.getenv("HEARTBEAT_MS"));
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        if ("1".equals(System.getenv("STATIC"))) {
            settings.put("group.instance.id", System.getenv("INSTANCE"));
        }
        return settings;
    }

    private static Map<String, Object> producerSettings() {
        return Map.of(
                "bootstrap.servers", System.getenv("BOOTSTRAP"),
                "acks", "all",
                "enable.idempotence", "true",
                "linger.ms", "5",
                "key.serializer", ByteArraySerializer.class,
                "value.serializer", ByteArraySerializer.class);
    }
}
