package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;

/** What the jobs need of an order, read by a streaming parser that skips the rest. Public fields and a public constructor: a Flink POJO. */
public class Order {
  public String user;
  public long id;
  public String country;
  public double amount;
  public long time;

  private static final JsonFactory JSON = new JsonFactory();

  public static Order parse(byte[] json) throws IOException {
    Order order = new Order();
    try (JsonParser parser = JSON.createParser(json)) {
      parser.nextToken();
      while (parser.nextToken() == JsonToken.FIELD_NAME) {
        String name = parser.currentName();
        parser.nextToken();
        switch (name) {
          case "user_id" -> order.user = parser.getText();
          case "order_id" -> order.id = parser.getLongValue();
          case "country" -> order.country = parser.getText();
          case "amount" -> order.amount = parser.getDoubleValue();
          case "ts" -> order.time = parser.getLongValue();
          default -> parser.skipChildren();
        }
      }
    }
    return order;
  }

  public boolean counts() {
    return amount > 1.0 && !"XX".equals(country);
  }

  public long cents() {
    return (long) (amount * 100);
  }
}
