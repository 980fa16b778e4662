import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.vertx.VertxParallelEoSStreamProcessor;
import io.vertx.core.Future;
import io.vertx.core.Promise;
import io.vertx.core.Vertx;
import io.vertx.core.buffer.Buffer;
import io.vertx.ext.web.client.HttpResponse;
import io.vertx.ext.web.client.WebClient;
import io.vertx.ext.web.client.WebClientOptions;
import java.io.IOException;
import java.net.URI;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * One record in, one chat completion, one record out, with Confluent's Parallel Consumer and its Vert.x module.
 *
 * <p>That module is the library's way to many calls without a thread for each. A record is done when the broker has
 * confirmed its answer; the library repeats what failed, for ever, after half a second. ORDER is UNORDERED or KEY.
 */
public class Worker {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final URI URL = URI.create(System.getenv("URL"));
    private static final String TOPIC_OUT = System.getenv("TOPIC_OUT");
    private static final String MODEL = System.getenv("MODEL");
    private static final int MAX_TOKENS = Integer.parseInt(System.getenv("MAX_TOKENS"));
    private static final int SLOTS = Integer.parseInt(System.getenv("N"));
    private static final int TIMEOUT_MS = 1000 * Integer.parseInt(System.getenv("TIMEOUT_S"));
    private static final KafkaProducer<byte[], byte[]> PRODUCER = new KafkaProducer<>(producerSettings());

    public static void main(String[] args) throws Exception {
        var options = ParallelConsumerOptions.<byte[], byte[]>builder()
                .consumer(new KafkaConsumer<>(consumerSettings()))
                .ordering(ProcessingOrder.valueOf(System.getenv("ORDER")))
                .maxConcurrency(SLOTS) // default 16
                .commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
                .commitInterval(Duration.ofSeconds(1)) // default 5 s
                .defaultMessageRetryDelay(Duration.ofMillis(500))
                .build();
        var vertx = Vertx.vertx();
        var web = WebClient.create(vertx, new WebClientOptions().setMaxPoolSize(SLOTS)); // default 5 per host
        var processor = new VertxParallelEoSStreamProcessor<byte[], byte[]>(vertx, web, options);
        Runtime.getRuntime().addShutdownHook(new Thread(processor::close));
        processor.subscribe(List.of(System.getenv("TOPIC_IN")));
        processor.vertxFuture(context -> enrich(web, context.getSingleConsumerRecord()));
        Thread.currentThread().join();
    }

    private static Future<Void> enrich(WebClient web, ConsumerRecord<byte[], byte[]> record) {
        try {
            var body = Buffer.buffer(question(record.value()));
            return web.post(URL.getPort(), URL.getHost(), URL.getPath())
                    .timeout(TIMEOUT_MS)
                    .putHeader("Content-Type", "application/json")
                    .sendBuffer(body)
                    .compose(response -> write(record, response));
        } catch (IOException unreadable) {
            return Future.failedFuture(unreadable);
        }
    }

    private static Future<Void> write(ConsumerRecord<byte[], byte[]> record, HttpResponse<Buffer> response) {
        Promise<Void> confirmed = Promise.promise();
        try {
            if (response.statusCode() != 200) {
                throw new IOException("HTTP " + response.statusCode());
            }
            var value = result(record.value(), response.body().getBytes());
            PRODUCER.send(new ProducerRecord<>(TOPIC_OUT, record.key(), value), (written, error) -> {
                if (error == null) {
                    confirmed.complete();
                } else {
                    confirmed.fail(error);
                }
            });
        } catch (IOException failed) {
            confirmed.fail(failed);
        }
        return confirmed.future();
    }

    private static byte[] question(byte[] value) throws IOException {
        ObjectNode body = JSON.createObjectNode().put("model", MODEL).put("max_tokens", MAX_TOKENS);
        var text = JSON.readTree(value).get("text").asText();
        body.putArray("messages").addObject().put("role", "user").put("content", text);
        return JSON.writeValueAsBytes(body);
    }

    private static byte[] result(byte[] value, byte[] response) throws IOException {
        var text = JSON.readTree(response).at("/choices/0/message/content").asText();
        var id = JSON.readTree(value).get("id").asLong();
        return JSON.writeValueAsBytes(JSON.createObjectNode().put("id", id).put("result", text));
    }

    private static Map<String, Object> consumerSettings() {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        settings.put("group.id", System.getenv("GROUP"));
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        if (!System.getenv("INSTANCE").isEmpty()) {
            settings.put("group.instance.id", System.getenv("INSTANCE"));
        }
        return settings;
    }

    private static Map<String, Object> producerSettings() {
        return Map.of(
                "bootstrap.servers", System.getenv("BOOTSTRAP"),
                "acks", "all",
                "linger.ms", "5",
                "key.serializer", ByteArraySerializer.class,
                "value.serializer", ByteArraySerializer.class);
    }
}
